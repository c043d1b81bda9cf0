"""A seeded, deterministic simulation of storage, manifest, compaction and collection.

``docs/simulation.md`` says what is simulated, what is checked and how a seed is repeated. From the
bottom up: `scheduler` (time, and who runs), `threads` (the library's locks and pools on it),
`network` (a store that fails, and processes that die), `ledger` (what was asked and answered, held
against what verification reads), `clients` (who asks for what), `world` (a run), `rules` (planted bugs).
"""
