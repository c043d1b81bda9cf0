"""The variants held against `serial` in C, without Python: NEON under an emulator, the others here.

``check_variants.c`` does it. It is compiled with the flags of the build, for this processor and, where
there are a cross compiler and qemu (Debian: gcc-aarch64-linux-gnu, qemu-user), for AArch64.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.ext.compiled import NATIVE, ROOT, build_flags, compile_check, needs_compiler, run_check
from vecstore.ext import rabitq

CHECK = Path(__file__).with_name("check_variants.c")
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
VARIANTS = list(rabitq.simd_available()[1:])

SPOILED = [
    ("squared_l2", "dot", "(((a) - (b)) * ((a) - (b)))", "((a) * (a) - (b) * (b))"),
    ("encode_slot", "encode", "r[3] >= 0.0", "r[3] > 0.0"),
    ("nearest", "nearest", "value < *best", "value <= *best"),
    ("rotate", "rotate", "half < power", "half < power / 2"),
    ("score_block", "scan", "estimates[j] <= limit", "estimates[j] < limit"),
    ("build_table", "table", "lut[16 * g + m]", "lut[16 * g + (m ^ 8)]"),
    ("count_within", "select", "values[i] <= limit", "values[i] < limit"),
    ("keep", "select", "(value <= limit)", "(value < limit)"),
    ("take_slots", "select", "first + slot", "first + (slot & 15)"),
    ("sort", "sort", "]++] = items[i];", "]++] = items[n - 1 - i];"),
]
SERIAL_BUT_FOR_AVX512 = ("keep", "take_slots")


def test_the_build_keeps_sums_unfused_and_asks_for_no_processor() -> None:
    flags = build_flags()
    assert "-ffp-contract=off" in flags
    assert not [flag for flag in flags if flag.startswith("-m") or "fast" in flag]


def native_digests(to: Path) -> list[str]:
    """What this processor's variants end with, one of each."""
    code, lines = run_check(compile_check(CHECK, str(NATIVE), to))
    assert code == 0, lines
    equal = [line.split(": equals serial, digest ") for line in lines if "not on this" not in line]
    assert [line[0] for line in equal] == VARIANTS
    return [line[1] for line in equal]


@needs_compiler
def test_every_variant_of_this_processor_equals_serial(tmp_path: Path) -> None:
    assert len(set(native_digests(tmp_path / "check"))) <= 1


@needs_compiler
def test_no_variant_of_this_processor_reads_or_writes_beyond_its_own_arrays(tmp_path: Path) -> None:
    """What the check puts behind its input tells of that alone: the sanitizers see the rest."""
    sanitised = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    code, lines = run_check(compile_check(CHECK, str(NATIVE), tmp_path / "check", *sanitised))
    assert code == 0, lines


@needs_compiler
@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"no {CROSS} on PATH (gcc-aarch64-linux-gnu)")
@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR} on PATH (qemu-user)")
def test_neon_equals_serial_under_an_emulator_and_gives_the_bits_of_this_processor(tmp_path: Path) -> None:
    code, lines = run_check(EMULATOR, compile_check(CHECK, CROSS, tmp_path / "neon", "-static"))
    assert code == 0, lines
    assert len(lines) == 1
    assert lines[0].startswith("neon: equals serial, digest ")
    assert all(lines[0].endswith(digest) for digest in native_digests(tmp_path / "native"))


@needs_compiler
@pytest.mark.skipif(not VARIANTS, reason="serial alone on this processor")
@pytest.mark.parametrize(("operation", "folder", "right", "wrong"), SPOILED, ids=[s[0] for s in SPOILED])
def test_the_check_names_the_operation_that_differs(
    operation: str, folder: str, right: str, wrong: str, tmp_path: Path
) -> None:
    if operation in SERIAL_BUT_FOR_AVX512 and "avx512" not in VARIANTS:
        pytest.skip("the variants of this processor are the serial one")
    shutil.copytree(ROOT / "ext" / "simd", tmp_path / "simd")
    header = tmp_path / "simd" / folder / "serial.h"
    text = header.read_text()
    assert text.count(right) == 1
    header.write_text(text.replace(right, wrong))
    code, lines = run_check(compile_check(CHECK, str(NATIVE), tmp_path / "check", "-O0", headers=tmp_path))
    assert code == 1
    variant = "avx512" if operation in SERIAL_BUT_FOR_AVX512 else VARIANTS[0]
    assert lines[-1].startswith(f"{variant}: {operation}(n = ")
    assert "differs from serial" in lines[-1]
