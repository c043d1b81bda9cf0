/* NEON twin of nearest/serial.h, the method of nearest/avx2.h in two vectors of four lanes. */
#ifndef VECSTORE_NEAREST_NEON_H
#define VECSTORE_NEAREST_NEON_H

#include <arm_neon.h>

#include "serial.h"

static void vs_nearest_neon(const float *dots, const float *half_norms, size_t k, int32_t label_base,
                            float *best, int32_t *label) {
    size_t j = 0;
    if (k >= 8) {
        static const int32_t first[4] = {0, 1, 2, 3};
        float values[8];
        int32_t labels[8];
        float32x4_t least0 = vdupq_n_f32(*best), least1 = least0;
        int32x4_t where0 = vdupq_n_s32(-1), where1 = where0;
        int32x4_t at0 = vld1q_s32(first), at1 = vaddq_s32(at0, vdupq_n_s32(4));
        for (; j + 8 <= k; j += 8) {
            const float32x4_t value0 = vsubq_f32(vld1q_f32(half_norms + j), vld1q_f32(dots + j));
            const float32x4_t value1 = vsubq_f32(vld1q_f32(half_norms + j + 4), vld1q_f32(dots + j + 4));
            const uint32x4_t less0 = vcltq_f32(value0, least0), less1 = vcltq_f32(value1, least1);
            least0 = vbslq_f32(less0, value0, least0);
            least1 = vbslq_f32(less1, value1, least1);
            where0 = vbslq_s32(less0, at0, where0);
            where1 = vbslq_s32(less1, at1, where1);
            at0 = vaddq_s32(at0, vdupq_n_s32(8));
            at1 = vaddq_s32(at1, vdupq_n_s32(8));
        }
        vst1q_f32(values, least0);
        vst1q_f32(values + 4, least1);
        vst1q_s32(labels, where0);
        vst1q_s32(labels + 4, where1);
        int32_t found = -1;
        for (int i = 0; i < 8; i++)
            if (labels[i] >= 0 && (values[i] < *best || (found >= 0 && values[i] == *best && labels[i] < found))) {
                *best = values[i];
                found = labels[i];
            }
        if (found >= 0)
            *label = label_base + found;
    }
    vs_nearest_serial(dots + j, half_norms + j, k - j, label_base + (int32_t)j, best, label);
}

#endif
