"""Hard limits, each with the field that it bounds. Requests beyond them are refused whole.

Settings that a namespace may change live in its manifest (`vecstore.manifest.model.Settings`).
"""

from __future__ import annotations

from typing import Final

MAX_DIM: Final = 4096  # u16 sums of the scan kernel: 1,024 groups of four, each entry at most 127
MAX_NAME_BYTES: Final = 128
MAX_ID_BYTES: Final = 64
MAX_U64: Final = 2**64 - 1
MAX_BATCH_ROWS: Final = 1_000_000
MAX_BATCH_BYTES: Final = 1 << 30  # of float32 vectors in one insert
MAX_PART_ROWS: Final = 1 << 30
MAX_TOP_K: Final = 10_000
MAX_QUERIES: Final = 10_000  # vectors in one batch search
MAX_TOGETHER: Final = 64  # queries of several kinds in one request
MAX_BATCH_HITS: Final = 1_000_000  # vectors in one batch search times top_k
MAX_RECALL_WORK: Final = 10**12  # queries times rows times dimensions of one exact search
MAX_RECALL_AT_ONCE: Final = 2  # measurements in one process
MAX_AGGREGATES: Final = 32  # results a group
MAX_GROUP_BY: Final = 8  # attributes
MAX_GROUPS: Final = 10_000
MAX_DISTINCT: Final = 1_000_000  # values that are counted, of all groups together
MAX_ANSWER_BYTES: Final = 256 << 20  # of vectors, attributes and groups of one answer, and texts for it
MAX_DELETE_IDS: Final = 1_000_000
MAX_PATCH_IDS: Final = 1_000_000
MAX_RETURNED_IDS: Final = 100_000  # of the rows that a write affected, where they are asked for
MAX_BODY_BYTES: Final = 256 << 20  # of an HTTP request, decompressed
MAX_MANIFEST_BYTES: Final = 16 << 20
MAX_IDEMPOTENCY_KEY_BYTES: Final = 128
MAX_IDEMPOTENCY_KEYS: Final = 1_000
MAX_KEY_RATE: Final = 1_000_000  # requests a second of one API key, and at once
MAX_PARTS: Final = 4_096  # unmerged parts of a namespace before writes get 429
MAX_RECENT_COMMITS: Final = 1_000
MAX_BRANCH_PINS: Final = 100  # epochs of a namespace that branches rest on, likewise
MAX_TAGS: Final = 100  # of a namespace: each is a line of every manifest, and an epoch that collection reads
MAX_PAGE_SIZE: Final = 1_000
MAX_CURSOR_BYTES: Final = 256  # of a scan
MAX_SCAN_ROWS: Final = 10_000  # of one page of a scan
MAX_SCAN_BYTES: Final = 16 << 20  # of what its rows hold, beyond which the page ends before its limit
MAX_SCAN_WALK: Final = 1 << 20  # rows that one page looks at, alive or not, matching or not
MAX_ATTRIBUTES: Final = 256  # in the schema of a namespace
MAX_NAMES: Final = MAX_ATTRIBUTES + 1  # in include or exclude: all attributes, and "vector"
MAX_ATTRIBUTE_NAME_BYTES: Final = 128
MAX_VALUE_BYTES: Final = 64 << 10  # of one string that is no filterable attribute
MAX_FILTERABLE_BYTES: Final = 4 << 10  # of one that is: it may be a line of a dictionary
MAX_ARRAY_ELEMENTS: Final = 4_096
MAX_ROW_BYTES: Final = 1 << 20  # of the attributes of one row, as they are stored
MAX_ROW_JSON_BYTES: Final = 8 << 20  # of one row as it is sent: a byte may take six, as \u0000
MAX_FILTER_BYTES: Final = 1 << 20  # of its JSON
MAX_FILTER_DEPTH: Final = 32
MAX_FILTER_NODES: Final = 1_024  # conditions, And, Or and Not of one filter
MAX_FILTER_VALUES: Final = 10_000  # in the lists of one filter
MAX_PATTERN_BYTES: Final = 1_024  # of a glob or a regular expression
MAX_PATTERN_TESTS: Final = 4_000_000  # texts times patterns of a filter that has more than one pattern
MAX_PATTERN_INSTRUCTIONS: Final = 6_000  # of a compiled one: one text may take 0.3 s, mostly 0.01 ms
MAX_PATTERN_MEMORY: Final = 1 << 20  # of a compiled one and its states
COMPACTION_BYTES: Final = 512 << 20  # of memory that a compaction takes, unless a setting says otherwise
LEAST_COMPACTION_BYTES: Final = 64 << 20
