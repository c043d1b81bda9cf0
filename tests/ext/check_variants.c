/* Holds every variant of the kernels that this processor runs against `serial`, bit for bit, on
 * random and extreme input, and ends with 1 at the first difference. No Python: it can be compiled
 * for another architecture and run under an emulator (test_neon.py); the digest of all results is
 * the same on each. Floats are the same if their bits are, or if both are NaN: which NaN comes out
 * of two is the compiler's choice of operands. Input ends where memory ends, so that a variant that
 * reads or writes beyond it is killed. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "simd/dispatch.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MOST_DIM 4096
#define ROOM (1 << 20)

static const VsKernels *const serial = vs_variants;
static const VsKernels *tested;
static char at_work[200]; /* what a handler of SIGSEGV can print */

static void begin(const char *name, size_t n, int round) {
    snprintf(at_work, sizeof at_work, "%s: %s(n = %zu, round %d)", tested->name, name, n, round);
}

static void fail(const char *what, size_t at) {
    printf("%s differs from serial: %s %zu\n", at_work, what, at);
    exit(1);
}

static void on_fault(int signal) {
    (void)signal;
    const char why[] = " reads or writes beyond its input\n";
    if (write(1, at_work, strlen(at_work)) < 0 || write(1, why, sizeof why - 1) < 0)
        _exit(2);
    _exit(1);
}

/* The last `bytes` of buffer `which`; what follows it cannot be touched. */
static void *ending(int which, size_t bytes) {
    static char *buffers[8];
    if (!buffers[which]) {
        char *area = mmap(NULL, ROOM + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED || mprotect(area + ROOM, 65536, PROT_NONE) != 0) {
            perror("mmap");
            exit(2);
        }
        buffers[which] = area;
    }
    return buffers[which] + ROOM - bytes;
}

static uint64_t random_state, digest;

static uint64_t random_bits(void) { /* Vigna's splitmix64 */
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

enum { PLAIN, WHOLE, TINY, HUGE_ONES, LIMITS, ANY_BITS, KINDS };
#define FINITE_KINDS ANY_BITS /* of LIMITS the last three can be left out */

static float random_float(int kind, int finite) {
    static const float limits[] = {0.0f,    -0.0f,    0x1p-149f, -0x1p-149f, 0x1p-126f, -0x1.fffffcp-127f, 0x1p-24f,
                                   1.0f,    -1.0f,    65504.0f,  FLT_MAX,    -FLT_MAX,  INFINITY,          -INFINITY,
                                   NAN};
    const uint64_t bits = random_bits();
    const float unit = (float)(int32_t)bits * 0x1p-31f;
    switch (kind) {
    case PLAIN:
        return unit;
    case WHOLE: /* many ties, and values between two whole numbers */
        return (float)((int)(bits % 9) - 4) * 0.5f;
    case TINY:
        return unit * 0x1p-126f;
    case HUGE_ONES:
        return unit * 0x1p120f;
    case LIMITS:
        return limits[bits % (COUNT(limits) - (finite ? 3 : 0))];
    default:
        return from_bits((uint32_t)bits);
    }
}

static float *random_floats(int which, size_t n, int kind, int finite) {
    float *x = ending(which, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(kind, finite);
    return x;
}

static void *random_bytes(int which, size_t bytes) {
    uint8_t *p = ending(which, bytes);
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)random_bits();
    return p;
}

static void add_to_digest(uint64_t result) { digest = (digest ^ result) * 0x100000001b3u; }

static void same_bytes(const void *got, const void *wanted, size_t bytes, const char *what) {
    for (size_t i = 0; i < bytes; i++) {
        if (((const uint8_t *)got)[i] != ((const uint8_t *)wanted)[i])
            fail(what, i);
        add_to_digest(((const uint8_t *)got)[i]);
    }
}

static void same_float(float got, float wanted, const char *what, size_t at) {
    if (memcmp(&got, &wanted, sizeof got) != 0 && (got == got || wanted == wanted)) {
        printf("got %a, not %a\n", (double)got, (double)wanted);
        fail(what, at);
    }
    uint32_t bits;
    memcpy(&bits, &got, sizeof bits);
    add_to_digest(got == got ? bits : UINT32_MAX);
}

static void check_sums(size_t n, int round) {
    const int kind = round % KINDS;
    const float *q = random_floats(0, n, kind, 0), *o = random_floats(1, n, kind, 0);
    begin("dot", n, round);
    same_float(tested->dot(q, o, n), serial->dot(q, o, n), "sum", 0);
    begin("squared_l2", n, round);
    same_float(tested->squared_l2(q, o, n), serial->squared_l2(q, o, n), "sum", 0);
    uint16_t *half = random_bytes(1, n * sizeof *half);
    for (size_t i = 0; i < n; i++) /* every fourth round has infinities and NaN, every third denormals alone */
        half[i] = (uint16_t)(round % 4 == 0 ? half[i] : round % 3 == 0 ? half[i] & 0x83ffu : half[i] & 0xbfffu);
    begin("dot_f16", n, round);
    same_float(tested->dot_f16(q, half, n), serial->dot_f16(q, half, n), "sum", 0);
    begin("squared_l2_f16", n, round);
    same_float(tested->squared_l2_f16(q, half, n), serial->squared_l2_f16(q, half, n), "sum", 0);
    begin("squared_norm_f16", n, round);
    same_float(tested->squared_norm_f16(half, n), serial->squared_norm_f16(half, n), "sum", 0);
}

/* All values of fp16, one at a time: the other dimensions are nought. */
static void check_every_half(void) {
    for (uint32_t bits = 0; bits < 1u << 16; bits++) {
        uint16_t half[9] = {0};
        float q[9] = {0};
        half[bits % 9] = (uint16_t)bits;
        q[bits % 9] = 1.0f;
        begin("dot_f16", 9, (int)bits);
        same_float(tested->dot_f16(q, half, 9), serial->dot_f16(q, half, 9), "sum", 0);
    }
}

static void check_dot_i8(size_t n, int round) {
    const int32_t most = (int32_t)vs_steps(n); /* what a sum in 32 bits is promised for */
    int8_t *o = random_bytes(1, n);
    int16_t *q = random_bytes(0, n * sizeof *q);
    for (size_t i = 0; i < n; i++) {
        if (o[i] == -128 || round % 4 == 1)
            o[i] = o[i] < 0 ? -127 : 127;
        q[i] = (int16_t)(round % 4 == 0 ? q[i] % (most + 1) : o[i] < 0 ? -most : most);
        if (round % 4 == 3)
            q[i] = (int16_t)-q[i];
    }
    begin("dot_i8", n, round);
    const int32_t got = tested->dot_i8(q, o, n), wanted = serial->dot_i8(q, o, n);
    same_bytes(&got, &wanted, sizeof got, "byte of sum");
}

static VsTable table_of(int which, float *z, size_t n) {
    VsTable table;
    memset(&table, 0, sizeof table);
    table.z = z;
    table.padded_dim = n;
    table.lut = ending(which, 4 * n);
    table.whole = ending(which + 1, n * sizeof *table.whole);
    return table;
}

static void check_build_table(size_t n, int round) {
    float *z = random_floats(0, n, round % FINITE_KINDS, 1);
    const float scale = ldexpf(1.0f, (int)(random_bits() % 180) - 130);
    for (size_t i = 0; i < n; i++) {
        z[i] = round % 3 == 1 ? z[i] * scale : z[i];
        z[i] = fabsf(z[i]) <= FLT_MAX ? z[i] : FLT_MAX;
        z[i] = round % 16 == 15 && i % 61 ? 0.0f : z[i];
    }
    if (round % 8 == 6) { /* one step is one, and sums lie within a few bits of k + 1/2 */
        for (size_t i = 0; i < n; i++)
            z[i] = (float)(random_bits() % 6) * 0.5f * (1.0f + random_float(WHOLE, 1) * 0x1p-23f);
        for (size_t i = 0; i < n && i < VS_RUN; i++)
            z[i] = i % 16 < 4 ? (n < VS_RUN ? 2.0f : 1.0f) * VS_LEVELS / 32.0f : z[i];
    }
    if (round % 32 == 31)
        z[random_bits() % n] = INFINITY;
    VsTable got = table_of(1, z, n), wanted = table_of(3, z, n);
    begin("build_table", n, round);
    tested->build_table(&got);
    serial->build_table(&wanted);
    same_float(got.scale, wanted.scale, "scale", 0);
    same_float(got.bias, wanted.bias, "bias", 0);
    same_float(got.step, wanted.step, "step", 0);
    same_float(got.squared_norm, wanted.squared_norm, "squared_norm", 0);
    same_bytes(got.whole, wanted.whole, n * sizeof *got.whole, "byte of whole");
    same_bytes(got.lut, wanted.lut, 4 * n, "byte of lut");
}

static uint32_t random_slots(int round) {
    static const uint32_t slots[] = {UINT32_MAX, 0xffffu, 0xffff0000u, 0x10000u, 0x8000u, 1u, 0x80000000u, 0};
    return round % 2 ? (uint32_t)random_bits() >> random_bits() % 32 : slots[random_bits() % COUNT(slots)];
}

/* Entries as great as a run may hold: eight of them, four groups apart, make 127. */
static uint8_t greatest_entry(size_t group) { return group / 4 % 8 == 3 ? 22 : 15; }

static void check_score_block(size_t n, int round) {
    const int kind = round % 2 ? PLAIN : (int)(random_bits() % KINDS);
    const size_t bytes = 4 * n + 3 * VS_BLOCK_ROWS * sizeof(float);
    VsTable table = table_of(1, NULL, n);
    uint8_t *block = random_bytes(0, bytes);
    float *factors = (float *)(void *)(block + 4 * n);
    float got[VS_BLOCK_ROWS], wanted[VS_BLOCK_ROWS];
    for (size_t i = 0; i < 3 * VS_BLOCK_ROWS; i++)
        factors[i] = random_float(kind, 0);
    for (size_t i = 0; i < 4 * n; i++)
        table.lut[i] = (uint8_t)(round % 4 == 0 ? greatest_entry(i / 16) : random_bits() % 16);
    table.scale = random_float(kind, 0);
    table.bias = random_float(kind, 0);
    const uint32_t slots = random_slots(round);
    const float g_add = random_float(kind, 0);
    float limit = random_float(random_bits() % 2 ? LIMITS : kind, 0);
    serial->score_block(&table, block, UINT32_MAX, g_add, limit, wanted);
    if (round % 3 == 0)
        limit = wanted[random_bits() % VS_BLOCK_ROWS]; /* one estimate is the limit */
    begin("score_block", n, round);
    const uint32_t mask = tested->score_block(&table, block, slots, g_add, limit, got);
    const uint32_t expected = serial->score_block(&table, block, slots, g_add, limit, wanted);
    for (size_t j = 0; j < VS_BLOCK_ROWS; j++)
        if (slots >> j & 1)
            same_float(got[j], wanted[j], "estimate", j);
    if (mask != expected)
        fail("mask, bit", (size_t)__builtin_ctz(mask ^ expected));
    add_to_digest(mask);
    /* Several queries over the same block: tables that differ by their scale. */
    VsTable tables[VS_TOGETHER];
    const VsTable *each[VS_TOGETHER];
    float adds[VS_TOGETHER], limits[VS_TOGETHER], shared[VS_TOGETHER][VS_BLOCK_ROWS];
    uint32_t masks[VS_TOGETHER];
    const size_t queries = 1 + random_bits() % VS_TOGETHER;
    for (size_t i = 0; i < queries; i++) {
        tables[i] = table;
        tables[i].scale = random_float(kind, 0);
        each[i] = tables + i;
        adds[i] = random_float(kind, 0);
        limits[i] = random_float(kind, 0);
    }
    begin("score_together", n, round);
    tested->score_together(each, queries, block, slots, adds, limits, shared, masks);
    for (size_t i = 0; i < queries; i++) {
        const uint32_t one = serial->score_block(tables + i, block, slots, adds[i], limits[i], wanted);
        for (size_t j = 0; j < VS_BLOCK_ROWS; j++)
            if (slots >> j & 1)
                same_float(shared[i][j], wanted[j], "estimate", j);
        if (masks[i] != one)
            fail("mask, query", i);
    }
}

static void check_rotate(size_t n, int round) {
    const size_t rounds = (size_t)round % 6;
    const uint8_t *signs = random_bytes(0, rounds * n / 8);
    float *got = random_floats(1, n, round % KINDS, 0), *wanted = ending(2, n * sizeof *wanted);
    memcpy(wanted, got, n * sizeof *got);
    begin("rotate", n, round);
    tested->rotate(got, n, signs, rounds);
    serial->rotate(wanted, n, signs, rounds);
    for (size_t i = 0; i < n; i++)
        same_float(got[i], wanted[i], "element", i);
}

static void check_nearest(size_t n, int round) {
    const int kind = round % KINDS;
    const float *dots = random_floats(0, n, kind, 0), *norms = random_floats(1, n, kind, 0);
    float got = round % 5 == 4 ? random_float(kind, 0) : INFINITY, wanted = got;
    int32_t label = -7, expected = -7;
    const int32_t base = (int32_t)(random_bits() % 1000000);
    begin("nearest", n, round);
    tested->nearest(dots, norms, n, base, &got, &label);
    serial->nearest(dots, norms, n, base, &wanted, &expected);
    same_float(got, wanted, "least", 0);
    if (label != expected)
        fail("label", (size_t)label);
    add_to_digest((uint32_t)label);
}

static void check_selection(size_t n, int round) {
    const int kind = round % KINDS;
    const float *values = random_floats(0, n, kind, 0), limit = random_float(kind, 0);
    const size_t room = (n + VS_BESIDE) * sizeof(float);
    float *got = ending(1, room), *wanted = ending(2, room);
    int32_t *items = ending(3, n * sizeof *items), *got_items = ending(4, room), *wanted_items = ending(5, room);
    for (size_t i = 0; i < n; i++)
        items[i] = (int32_t)random_bits();
    begin("count_within", n, round);
    if (tested->count_within(values, n, limit) != serial->count_within(values, n, limit))
        fail("count", n);
    for (int beyond = 0; beyond < 2; beyond++) {
        begin("keep", n, round);
        const size_t kept = tested->keep(values, items, n, limit, beyond, got, got_items);
        if (kept != serial->keep(values, items, n, limit, beyond, wanted, wanted_items))
            fail("kept", kept);
        for (size_t i = 0; i < kept; i++) {
            same_float(got[i], wanted[i], "kept number", i);
            if (got_items[i] != wanted_items[i])
                fail("kept item", i);
        }
        /* Where they come from, too. */
        memcpy(wanted, values, n * sizeof *values);
        memcpy(wanted_items, items, n * sizeof *items);
        if (tested->keep(wanted, wanted_items, n, limit, beyond, wanted, wanted_items) != kept)
            fail("kept in place", kept);
        for (size_t i = 0; i < kept; i++) {
            same_float(wanted[i], got[i], "number kept in place", i);
            if (got_items[i] != wanted_items[i])
                fail("item kept in place", i);
        }
    }
    if (n < VS_BLOCK_ROWS)
        return;
    const uint32_t mask = (uint32_t)random_bits() >> round % 32;
    begin("take_slots", n, round);
    got = ending(1, (vs_count(mask) + VS_BESIDE) * sizeof *got);
    got_items = ending(4, (vs_count(mask) + VS_BESIDE) * sizeof *got_items);
    const size_t taken = tested->take_slots(mask, values, items[0], got, got_items);
    if (taken != serial->take_slots(mask, values, items[0], wanted, wanted_items))
        fail("taken", taken);
    for (size_t i = 0; i < taken; i++) {
        same_float(got[i], wanted[i], "number taken", i);
        if (got_items[i] != wanted_items[i])
            fail("item taken", i);
    }
}

static void check_sort(size_t n, int round) {
    const int kind = round % KINDS;
    const size_t bytes = n * sizeof(VsRanked);
    VsRanked *given = ending(0, bytes), *wanted = ending(1, bytes), *spare = ending(2, bytes), *other = ending(3, bytes);
    for (size_t i = 0; i < n; i++) {
        given[i].key = vs_ordered(random_float(kind, 0));
        given[i].value = (uint32_t)i;
    }
    memcpy(wanted, given, bytes);
    const float low = random_float(kind, 0), high = round % 3 ? random_float(kind, 0) : 1.0f;
    begin("sort", n, round);
    const VsRanked *got = tested->sort(given, spare, n, low, high);
    const VsRanked *sorted = serial->sort(wanted, other, n, low, high);
    if (got != given && got != spare)
        fail("place", n);
    for (size_t i = 0; i < n; i++) {
        if (got[i].key != sorted[i].key || got[i].value != sorted[i].value)
            fail("item", i);
        if (i && (got[i].key < got[i - 1].key || (got[i].key == got[i - 1].key && got[i].value < got[i - 1].value)))
            fail("order of item", i);
        add_to_digest(got[i].value);
    }
}

static void check_encoders(size_t n, int round) {
    const int kind = round % FINITE_KINDS;
    const size_t bytes = 4 * n + 3 * VS_BLOCK_ROWS * sizeof(float);
    const float *row = random_floats(0, n, kind, 1);
    double *centroid = ending(1, n * sizeof *centroid);
    for (size_t i = 0; i < n; i++)
        centroid[i] = round % 8 == 7 ? (double)row[i] : (double)random_float(kind, 1);
    VsSource source = {.row = row, .centroid = centroid, .padded_dim = n, .shift = (double)random_float(PLAIN, 1)};
    source.residual = ending(2, n * sizeof *source.residual);
    uint8_t *got = ending(3, bytes), *wanted = ending(4, bytes);
    memset(got, 0, bytes);
    memset(wanted, 0, bytes);
    begin("encode_slot", n, round);
    for (int i = 0; i < 3; i++) {
        const size_t slot = ((size_t)round + 11 * (size_t)i) % VS_BLOCK_ROWS;
        tested->encode_slot(&source, got, slot);
        serial->encode_slot(&source, wanted, slot);
    }
    same_bytes(got, wanted, 4 * n, "byte of codes");
    for (size_t i = 0; i < 3 * VS_BLOCK_ROWS; i++)
        same_float(((float *)(void *)(got + 4 * n))[i], ((float *)(void *)(wanted + 4 * n))[i], "factor", i);
    VsInt8Factors factors, factors_wanted;
    begin("encode_int8", n, round);
    tested->encode_int8(&source, (int8_t *)ending(3, n), &factors);
    serial->encode_int8(&source, (int8_t *)ending(4, n), &factors_wanted);
    same_bytes(ending(3, n), ending(4, n), n, "byte");
    same_float(factors.scale, factors_wanted.scale, "scale", 0);
    same_float(factors.add, factors_wanted.add, "add", 0);
}

static void check_variant(void) {
    static const size_t dims[] = {64, 128, 192, 256, 320, 384, 448, 512, 768, 960, 1024, 1536, 2048, 3072, MOST_DIM};
    static const size_t lengths[] = {255, 256, 257, 383, 384, 385, 767, 1000, 1536, 4095, MOST_DIM};
    for (size_t n = 0; n < 200 + COUNT(lengths); n++)
        for (int round = 0; round < 4 * KINDS; round++) {
            check_sums(n < 200 ? n : lengths[n - 200], round);
            check_nearest(n < 200 ? n : lengths[n - 200], round);
            check_selection(n < 200 ? n : lengths[n - 200], round);
            check_sort(n < 200 ? n : lengths[n - 200], round);
        }
    check_every_half();
    for (size_t i = 0; i < COUNT(dims); i++)
        for (int round = 0; round < 96; round++) {
            check_dot_i8(dims[i], round);
            check_build_table(dims[i], round);
            check_score_block(dims[i], round);
            check_rotate(dims[i], round);
            check_encoders(dims[i], round);
        }
}

int main(void) {
    struct sigaction fault = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGBUS, &fault, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < vs_variant_count(); i++) {
        tested = vs_variants + i;
        if (!vs_supported(tested)) {
            printf("%s: not on this processor\n", tested->name);
            continue;
        }
        random_state = 20240229;
        digest = 0xcbf29ce484222325u; /* of FNV-1a */
        check_variant();
        printf("%s: equals serial, digest %016llx\n", tested->name, (unsigned long long)digest);
    }
    return 0;
}
