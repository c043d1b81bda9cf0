"""Real processes on SeaweedFS, killed at random: ``python -m tests.chaos --minutes 5 --seed 1``.

- ``actors.py`` is what the processes do and note down: writers, readers, a compactor, a collector.
- ``run.py`` starts and kills them, and the store.
- ``ledger.py`` judges what they noted down.
"""
