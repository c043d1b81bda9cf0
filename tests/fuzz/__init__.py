"""Fuzzing of everything that reads bytes: see ``docs/fuzzing.md``.

    python -m tests.fuzz --minutes 60

An input is a short program: which store to take, what to change in it, what to ask of it then. Checksums are
computed anew after the changes, so that what is wrong gets past them. That keeps inputs to a few dozen bytes,
and means that they run just as well without a fuzzer (``tests/fuzz/test_corpus.py``).
"""
