"""The command ``vecstore``. Settings: options, then ``VECSTORE_*`` variables, then the file.

Errors are one line on stderr and status 1; wrong usage is status 2. What a command needs is imported
when it runs, so that ``vecstore --help`` loads neither Flask nor boto3.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Literal, get_args

import click
import msgspec

from vecstore.cli import about, copying, history, keys, stores, transfer, upkeep
from vecstore.cli.common import (
    F,
    Group,
    json_option,
    json_value,
    open_database,
    print_json,
    progress_bar,
    refuse_remote,
    row_id,
    schema_option,
    show_info,
    skipped_rows,
)
from vecstore.config import load_config
from vecstore.errors import NOT_JSON, InvalidArgument, NamespaceNotFound, VecstoreError
from vecstore.types import Metric

_SOURCES: Final = {"rows": "stored rows", "recent": "recent queries", "queries": "queries"}


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=about.show_version,
    help="Show the version and what was built, and exit.",
)
def main() -> None:
    """Vector search whose only durable state is object storage.

    URL is a directory, s3://bucket/prefix, or http://host:port of a server.
    """


def _effort_options(command: F) -> F:
    """How to search."""
    for option in (
        click.option("--epoch", type=int, help="A past epoch."),
        click.option("--rerank-precision", type=click.Choice(["none", "int8", "fp32"])),
        click.option("--rerank-scale", type=float),
        click.option("--target-recall", type=float),
        click.option("--nprobe", type=int),
        click.option("--probe-fraction", type=float),
        click.option("--top-k", default=10, show_default=True, type=int),
    ):
        command = option(command)
    return command


# -- servers -------------------------------------------------------------------------------


@main.command()
@click.argument("url", required=False)
@click.option("--host", help="Address to listen on; loopback unless there are keys.")
@click.option("--port", type=int, help="Port; 8080 by default.")
@click.option("--workers", type=int, help="Processes; one a processor by default.")
@click.option("--threads", type=int, help="Requests that run at once in a process; 8 by default.")
@click.option("--keys-file", help="API keys, made by `vecstore keys`; without it anybody may do anything.")
@click.option("--allow-remote", is_flag=True, default=None, help="Listen beyond loopback without keys.")
@click.option("--cache-bytes", type=int, help="Memory of a process for what it reads from S3.")
@click.option("--cache-dir", help="Folder of a disk cache that all processes here share; none by default.")
@click.option("--disk-cache-bytes", type=int, help="Bound of the disk cache; 10 GiB by default.")
@click.option("--recall-sample-rate", type=float, help="Share of searches whose recall is measured.")
@click.option("--maintenance/--no-maintenance", default=None, help="Compact and collect beside the workers.")
def serve(**options: Any) -> None:
    """Serve a store over HTTP until SIGTERM or Ctrl-C."""
    from vecstore.server.serve import serve

    serve(load_config(options))


@main.command()
@click.argument("url", required=False)
@click.option("--parent", type=int, hidden=True)
def maintain(url: str | None, parent: int | None) -> None:
    """Compact and collect a store until SIGTERM or Ctrl-C; `serve` runs one of these."""
    from vecstore.server.maintenance import maintain
    from vecstore.telemetry.logs import configure_logging
    from vecstore.telemetry.setup import maintenance_metrics

    config = load_config({"url": url})
    refuse_remote(config.url)
    configure_logging(config.log_level, config.log_format)
    seen = maintenance_metrics(config, alone=parent is None)
    with open_database(url, config=config, observer=seen) as database:
        maintain(database.backend, config, parent=parent, observer=seen)


# -- data ----------------------------------------------------------------------------------


@main.command()
@click.argument("url")
@click.argument("namespace")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--batch", default=10_000, show_default=True, type=click.IntRange(1), help="Rows an insert.")
@click.option("--create", is_flag=True, help="Create the namespace if it is not there.")
@click.option(
    "--metric", type=click.Choice(get_args(Metric)), help="With --create; that of an export, or else cosine."
)
@schema_option
@click.option("--mode", type=click.Choice(["upsert", "insert"]), default="upsert", show_default=True)
@click.option("--start-at", default=0, type=click.IntRange(0), help="First row; with one file only.")
@click.option("--again", is_flag=True, help="Also what was loaded within the last hour.")
@click.option("--compact", is_flag=True, help="Merge all parts when the files are in.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def ingest(
    url: str,
    namespace: str,
    files: tuple[Path, ...],
    batch: int,
    create: bool,
    metric: Metric | None,
    declared: str | None,
    mode: Literal["upsert", "insert"],
    start_at: int,
    again: bool,
    compact: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Insert files of rows: .parquet, .arrow, .feather, .jsonl, .npy, .npz, .fvecs, .fbin and their like.

    An interrupted ingest is taken up again by the same command within an hour: batches that it loaded
    are skipped, but for --again. After that, or with another --batch, name the first row with --start-at.
    """
    from tqdm import tqdm

    from vecstore.ingest import Loaded, check_batches, load, namespace_for, open_file, schema_of

    schema = json_value(declared, "schema")
    if start_at and len(files) > 1:
        raise click.UsageError("--start-at goes with one file")
    opened = [open_file(path) for path in files]
    check_batches(opened, batch, start_at)
    total = sum(max(0, file.rows - start_at) for file in opened)
    done: list[Loaded] = []
    with open_database(url, maintenance="thread") as database:
        header = opened[0].header
        target = (
            nullcontext(database.namespace(namespace))
            if not create
            else namespace_for(
                database,
                namespace,
                opened[0].dim,
                metric or ("cosine" if header is None else header.metric),
                schema={**schema_of(opened[0]), **(schema or {})},
                defaults=None if header is None else header.defaults,
            )
        )
        with (
            target as ns,
            tqdm(total=total, unit="row", unit_scale=True, disable=quiet or None, file=sys.stderr) as bar,
        ):
            done.extend(
                load(
                    ns,
                    file,
                    batch_rows=batch,
                    start=start_at,
                    mode=mode,
                    schema=schema,
                    again=again,
                    progress=bar.update,
                )
                for file in opened
            )
        if compact:
            with progress_bar("compact", quiet) as progress:
                ns.compact(progress=progress)
        info = ns.stats()
    rows, skipped = sum(d.rows for d in done), sum(d.skipped for d in done)
    if as_json:
        print_json({"rows": rows, "skipped": skipped, "epoch": info.epoch, "namespace_rows": info.rows})
    else:
        click.echo(
            f"{rows:,} rows inserted; {namespace} has {info.rows:,} at epoch {info.epoch}"
            f"{skipped_rows(skipped)}"
        )


@main.command()
@click.argument("url")
@click.argument("namespace")
@click.option("--vector", help="JSON array or base64 of little-endian float32; - reads a line from stdin.")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Queries in a file that ingest reads.")
@click.option("--id", "identity", help="Search with the vector of this row.")
@_effort_options
@click.option("--debug", is_flag=True, help="Plan, counts and times; implies --json.")
@json_option
def search(
    url: str,
    namespace: str,
    vector: str | None,
    path: Path | None,
    identity: str | None,
    debug: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Print the nearest rows of a vector, of each vector in a file, or of a row."""
    from vecstore.server import wire

    if sum(given is not None for given in (vector, path, identity)) != 1:
        raise click.UsageError("give one of --vector, --file and --id")
    with open_database(url) as database:
        ns = database.namespace(namespace)
        options["debug"] = debug
        if path is not None:
            from vecstore.ingest import open_file, vectors_of

            queries = vectors_of(open_file(path))
            found = ns.search_batch(queries, **options)
            body = wire.found_batch(found)
            answers = [found[i] for i in range(len(found))]
        else:
            if identity is not None:
                query = ns.get(row_id(ns, identity), epoch=options["epoch"]).vector
                if query is None:
                    raise InvalidArgument("the namespace keeps no vectors", field="id")
            else:
                query = wire.from_query((sys.stdin.readline() if vector == "-" else vector or "").strip())
            one = ns.search(query, **options)
            body, answers = wire.found(one), [one]
    if as_json or debug:
        print_json(body)
        return
    for number, hits in enumerate(answers):
        if number:
            click.echo()
        for hit in hits:
            click.echo(f"{hit.distance:.6f}\t{hit.id}")


@main.command()
@click.argument("url")
@click.argument("namespace")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Queries in a file that ingest reads.")
@click.option("--recent", is_flag=True, help="Queries that a server has kept; stored rows by default.")
@click.option("--live", is_flag=True, help="What a server has measured of its live searches, and no more.")
@click.option("--sample", type=int, help="Queries, drawn at random; 500 by default, or the whole file.")
@click.option("--confidence", default=0.95, show_default=True, type=float, help="Of the interval.")
@click.option("--seed", type=int, help="Of the draw.")
@_effort_options
@json_option
def recall(
    url: str, namespace: str, path: Path | None, recent: bool, live: bool, as_json: bool, **options: Any
) -> None:
    """Measure recall against exact search."""
    if sum((path is not None, recent, live)) > 1:
        raise click.UsageError("give one of --file, --recent and --live")
    with open_database(url) as database:
        ns = database.namespace(namespace)
        if live:
            found = ns.recall_estimate()
        elif path is not None:
            from vecstore.ingest import open_file, vectors_of

            queries = vectors_of(open_file(path))
            found = ns.measure_recall(queries, **options)
        else:
            found = ns.measure_recall(source="recent" if recent else "rows", **options)
    if as_json:
        print_json(found)
    elif live and found.recall is None:
        click.echo(f"no live search has been measured; {found.sample_rate:g} of them are sampled")
    else:
        click.echo(
            f"recall {found.recall:.4f} ({found.low:.4f} to {found.high:.4f} at {found.confidence:.4g}), "
            f"{found.queries:,} {'live searches' if live else _SOURCES[found.source]}, epoch {found.epoch}"
        )
        if not live:
            click.echo(
                f"a query scans {found.rows_scanned:,.0f} of {found.rows:,} rows in "
                f"{1e3 * found.search_seconds:.3f} ms; exact search takes {1e3 * found.exact_seconds:.3f} ms"
            )


@main.command()
@click.argument("url")
@click.argument("namespace")
@click.argument("ids", nargs=-1, required=True)
@json_option
def delete(url: str, namespace: str, ids: tuple[str, ...], as_json: bool) -> None:
    """Delete rows by id."""
    with open_database(url) as database:
        ns = database.namespace(namespace)
        done = ns.delete([row_id(ns, text) for text in ids])
    if as_json:
        print_json({"deleted": done.deleted, "epoch": done.epoch})
    else:
        click.echo(f"{done.deleted:,} rows deleted, epoch {done.epoch}")


# -- namespaces ----------------------------------------------------------------------------


@main.group(cls=Group)
def ns() -> None:
    """Namespaces: list, create, show, update, delete."""


def _settings_option(command: F) -> F:
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A default, such as probe_fraction=0.2.",
    )(command)


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    from vecstore.manifest.model import Settings

    known = Settings.__struct_fields__
    found: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set takes NAME=VALUE, not {pair!r}")
        if name not in known:  # it might be another option of the call that it is passed to
            raise InvalidArgument(
                f"--set: {name!r} is no default; there are {', '.join(known)}", field=name, limit=list(known)
            )
        try:
            found[name] = msgspec.json.decode(text)
        except NOT_JSON:
            found[name] = text
    return found


@ns.command("list")
@click.argument("url")
@click.option("--prefix", default="")
@json_option
def ns_list(url: str, prefix: str, as_json: bool) -> None:
    """Names, with rows, dimension and metric."""
    with open_database(url) as database:
        found = list(database.namespaces(prefix))
    if as_json:
        print_json(found)
        return
    for info in found:
        click.echo(
            f"{info.name}\t{info.rows:,} rows\t{info.dim} dimensions\t{info.metric}\t{info.parts} parts"
        )


@ns.command("create")
@click.argument("url")
@click.argument("namespace")
@click.option("--dim", required=True, type=int)
@click.option("--metric", type=click.Choice(get_args(Metric)), default="cosine", show_default=True)
@_settings_option
@schema_option
@json_option
def ns_create(
    url: str,
    namespace: str,
    dim: int,
    metric: Metric,
    settings: tuple[str, ...],
    declared: str | None,
    as_json: bool,
) -> None:
    """Create a namespace."""
    defaults, schema = _settings(settings), json_value(declared, "schema")
    with open_database(url) as database:
        info = database.create_namespace(namespace, dim, metric, schema=schema, **defaults).stats()
    show_info(info, as_json)


@ns.command("show")
@click.argument("url")
@click.argument("namespace")
@json_option
def ns_show(url: str, namespace: str, as_json: bool) -> None:
    """What a namespace is and holds."""
    with open_database(url) as database:
        show_info(database.namespace(namespace).stats(), as_json)


@ns.command("update")
@click.argument("url")
@click.argument("namespace")
@_settings_option
@schema_option
@json_option
def ns_update(
    url: str, namespace: str, settings: tuple[str, ...], declared: str | None, as_json: bool
) -> None:
    """Change defaults, declare attributes, or drop those whose type is null."""
    if not settings and declared is None:
        raise click.UsageError("nothing to change: give --set NAME=VALUE or --schema JSON")
    changes, schema = _settings(settings), json_value(declared, "schema")
    with open_database(url) as database:
        show_info(database.namespace(namespace).update(schema=schema, **changes), as_json)


@ns.command("delete")
@click.argument("url")
@click.argument("namespace")
@click.option("--yes", is_flag=True, help="Do not ask.")
def ns_delete(url: str, namespace: str, yes: bool) -> None:
    """Delete a namespace and all its rows."""
    with open_database(url) as database:
        info = database.namespace(namespace).stats()
        if not yes:
            click.confirm(f"Delete {namespace} with {info.rows:,} rows?", abort=True)
        database.delete_namespace(namespace)
    click.echo(f"{namespace} deleted")


# -- maintenance ---------------------------------------------------------------------------


@main.command()
@click.argument("url")
@click.argument("namespace")
@click.option("--due", is_flag=True, help="Only what is due.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def compact(url: str, namespace: str, due: bool, quiet: bool, as_json: bool) -> None:
    """Merge the parts of a namespace and retrain."""
    with open_database(url) as database, progress_bar("compact", quiet) as progress:
        done = database.namespace(namespace).compact(everything=not due, progress=progress)
    if as_json:
        print_json(done)
    elif done.merged:
        click.echo(f"{len(done.merged)} parts merged, {done.rows:,} rows, epoch {done.epoch} ({done.reason})")
    else:
        click.echo(f"nothing merged: {done.reason}")


@main.command()
@click.argument("url")
@click.argument("namespace", required=False)
@click.option("--dry-run", is_flag=True, help="Only tell.")
@click.option("--retention", type=float, help="Seconds of history that stay readable.")
@click.option("--grace", type=float, help="Seconds that a new object is left alone.")
@json_option
@click.pass_context
def gc(
    ctx: click.Context,
    url: str,
    namespace: str | None,
    dry_run: bool,
    retention: float | None,
    grace: float | None,
    as_json: bool,
) -> None:
    """Delete objects that no readable epoch names, of one namespace or of all.

    Status 1 if one of them could not be collected; the others were.
    """
    config = load_config({"url": url, "gc_retention": retention, "gc_grace": grace})
    refuse_remote(config.url)
    results: dict[str, Any] = {}
    failed = False
    with open_database(url, config=config) as database:
        backend = database.backend
        for name in [namespace] if namespace is not None else backend.names():
            try:
                done = backend.collect(
                    name, retention=config.gc_retention, grace=config.gc_grace, dry_run=dry_run
                )
            except VecstoreError as error:
                if namespace is not None:
                    raise
                if isinstance(error, NamespaceNotFound):  # a folder that is none, or its last object went
                    continue
                failed = True
                told = f"NOT COLLECTED\t{error.code}: {error.message}"
                results[name] = {"code": error.code, "message": error.message}
            else:
                verb = "would be deleted" if dry_run else "deleted"
                told = f"{done.deleted:,} objects ({done.bytes:,} bytes) {verb}, {done.waiting:,} waiting"
                results[name] = done
            if not as_json:
                click.echo(f"{name}\t{told}")
    if as_json:
        print_json(results)
    ctx.exit(1 if failed else 0)


# -- of modules of their own ---------------------------------------------------------------

for command in (
    about.info,
    keys.keys,
    stores.check_store,
    copying.copy,
    upkeep.warm,
    upkeep.verify,
    history.get,
    history.manifest,
    history.restore,
    history.branch,
    history.tag,
    transfer.scan,
    transfer.export,
    transfer.import_,
):
    main.add_command(command)


# -- the first minute ---------------------------------------------------------------------


@main.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the sample; examples/glosses by default."
)
def demo(data: Path | None) -> None:
    """Load the sample of definitions, search it over HTTP, and clean up."""
    from vecstore.demo import run

    run(data)
