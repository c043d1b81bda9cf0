/* The one place that knows which variants exist and what the processor can do. A new instruction
 * set is a header an operation, a row in `vs_variants` and its condition in `vs_supported`; it may
 * fall back to a narrower variant's function for any operation. */
#ifndef VECSTORE_DISPATCH_H
#define VECSTORE_DISPATCH_H

#include "dot/serial.h"
#include "encode/serial.h"
#include "nearest/serial.h"
#include "rotate/serial.h"
#include "scan/serial.h"
#include "select/serial.h"
#include "table/serial.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define VS_HAVE_AVX2 1
#include "dot/avx2.h"
#include "encode/avx2.h"
#include "nearest/avx2.h"
#include "rotate/avx2.h"
#include "scan/avx2.h"
#include "select/avx2.h"
#include "table/avx2.h"
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
        .rotate = vs_rotate_##ISA,                                                                 \
        .nearest = vs_nearest_##ISA,                                                               \
        .range = vs_range_##ISA,                                                                   \
        .histogram = vs_histogram_##ISA,                                                           \
        .collect = vs_collect_##ISA,                                                               \
        .encode_slot = vs_encode_slot_##ISA,                                                       \
        .encode_int8 = vs_encode_int8_##ISA,                                                       \
    }

/* From the plainest to the best. */
static const VsKernels vs_variants[] = {
    VS_VARIANT(serial),
#ifdef VS_HAVE_AVX2
    VS_VARIANT(avx2),
#endif
};

static inline int vs_variant_count(void) { return (int)(sizeof vs_variants / sizeof vs_variants[0]); }

static inline int vs_supported(const VsKernels *variant) {
#ifdef VS_HAVE_AVX2
    if (strcmp(variant->name, "avx2") == 0) {
        __builtin_cpu_init();
        /* Every processor with AVX2 has F16C; GCC 10 cannot ask for it by name. */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi");
    }
#endif
    return strcmp(variant->name, "serial") == 0;
}

#endif
