/* The one place that knows which variants exist and what the processor can do. A new instruction
 * set is a header an operation, a row in `vs_variants` and its condition in `vs_supported`; it may
 * fall back to a narrower variant's function for any operation. */
#ifndef VECSTORE_DISPATCH_H
#define VECSTORE_DISPATCH_H

#include "processor.h"

#include "dot/serial.h"
#include "encode/serial.h"
#include "nearest/serial.h"
#include "rotate/serial.h"
#include "scan/serial.h"
#include "select/serial.h"
#include "sort/serial.h"
#include "table/serial.h"

#ifdef VS_HAVE_X86
#include "dot/avx2.h"
#include "dot/avx512.h"
#include "encode/avx2.h"
#include "encode/avx512.h"
#include "nearest/avx2.h"
#include "nearest/avx512.h"
#include "rotate/avx2.h"
#include "rotate/avx512.h"
#include "scan/avx2.h"
#include "scan/avx512.h"
#include "select/avx2.h"
#include "select/avx512.h"
#include "sort/avx2.h"
#include "sort/avx512.h"
#include "table/avx2.h"

/* What 512 bits do not make faster (bench/kernels.py, Zen 4). */
#define vs_dot_f16_avx512 vs_dot_f16_avx2
#define vs_squared_l2_f16_avx512 vs_squared_l2_f16_avx2
#define vs_squared_norm_f16_avx512 vs_squared_norm_f16_avx2
#define vs_build_table_avx512 vs_build_table_avx2
#define vs_encode_int8_avx512 vs_encode_int8_avx2

/* Nothing in AVX2 puts the numbers of a mask together. */
#define vs_keep_avx2 vs_keep_serial
#define vs_take_slots_avx2 vs_take_slots_serial
#endif

#if defined(__AARCH64EL__) && defined(__GNUC__)
#define VS_HAVE_NEON 1
#include "dot/neon.h"
#include "encode/neon.h"
#include "nearest/neon.h"
#include "rotate/neon.h"
#include "scan/neon.h"
#include "select/neon.h"
#include "table/neon.h"

/* The serial body is compiled for NEON anyway, which every AArch64 has. */
#define vs_encode_int8_neon vs_encode_int8_serial
#define vs_keep_neon vs_keep_serial
#define vs_take_slots_neon vs_take_slots_serial
#define vs_sort_neon vs_sort_serial
#endif

#define VS_VARIANT(ISA)                                                                            \
    {                                                                                              \
        .name = #ISA,                                                                              \
        .dot = vs_dot_##ISA,                                                                       \
        .squared_l2 = vs_squared_l2_##ISA,                                                         \
        .dot_i8 = vs_dot_i8_##ISA,                                                                 \
        .dot_f16 = vs_dot_f16_##ISA,                                                               \
        .squared_l2_f16 = vs_squared_l2_f16_##ISA,                                                 \
        .squared_norm_f16 = vs_squared_norm_f16_##ISA,                                             \
        .build_table = vs_build_table_##ISA,                                                       \
        .score_block = vs_score_block_##ISA,                                                       \
        .score_together = vs_score_together_##ISA,                                                 \
        .rotate = vs_rotate_##ISA,                                                                 \
        .nearest = vs_nearest_##ISA,                                                               \
        .count_within = vs_count_within_##ISA,                                                     \
        .keep = vs_keep_##ISA,                                                                     \
        .take_slots = vs_take_slots_##ISA,                                                         \
        .sort = vs_sort_##ISA,                                                                     \
        .encode_slot = vs_encode_slot_##ISA,                                                       \
        .encode_int8 = vs_encode_int8_##ISA,                                                       \
    }

/* From the plainest to the best. */
static const VsKernels vs_variants[] = {
    VS_VARIANT(serial),
#ifdef VS_HAVE_X86
    VS_VARIANT(avx2),
    VS_VARIANT(avx512),
#endif
#ifdef VS_HAVE_NEON
    VS_VARIANT(neon),
#endif
};

static inline int vs_variant_count(void) { return (int)(sizeof vs_variants / sizeof vs_variants[0]); }

static inline int vs_supported(const VsKernels *variant) {
#ifdef VS_HAVE_X86
    if (strcmp(variant->name, "avx2") == 0)
        return vs_x86_level() >= VS_X86_AVX2;
    if (strcmp(variant->name, "avx512") == 0)
        return vs_x86_level() >= VS_X86_AVX512;
#endif
#ifdef VS_HAVE_NEON
    if (strcmp(variant->name, "neon") == 0)
        return 1;
#endif
    return strcmp(variant->name, "serial") == 0;
}

#endif
