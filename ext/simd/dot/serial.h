/* Inner products and squared distances in the canonical order of kernels.h. */
#ifndef VECSTORE_DOT_SERIAL_H
#define VECSTORE_DOT_SERIAL_H

#include "../kernels.h"

static inline float vs_reduce_serial(float *lane) {
    for (size_t width = VS_LANES / 2; width > 0; width /= 2)
        for (size_t i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

#define VS_PRODUCT(a, b) ((a) * (b))
#define VS_SQUARE_OF_DIFFERENCE(a, b) (((a) - (b)) * ((a) - (b)))
#define VS_AS_FLOAT(x) ((float)(x))

#define VS_SERIAL_SUM(NAME, TYPE, CONVERT, TERM)                                                   \
    static float NAME(const float *q, const TYPE *o, size_t n) {                                   \
        float lane[VS_LANES] = {0};                                                                \
        size_t i = 0;                                                                              \
        for (; i + VS_LANES <= n; i += VS_LANES)                                                   \
            for (size_t j = 0; j < VS_LANES; j++)                                                  \
                lane[j] += TERM(q[i + j], CONVERT(o[i + j]));                                      \
        for (size_t j = 0; i + j < n; j++)                                                         \
            lane[j] += TERM(q[i + j], CONVERT(o[i + j]));                                          \
        return vs_reduce_serial(lane);                                                             \
    }

VS_SERIAL_SUM(vs_dot_serial, float, VS_AS_FLOAT, VS_PRODUCT)
VS_SERIAL_SUM(vs_squared_l2_serial, float, VS_AS_FLOAT, VS_SQUARE_OF_DIFFERENCE)
VS_SERIAL_SUM(vs_dot_f16_serial, uint16_t, vs_half_to_float, VS_PRODUCT)
VS_SERIAL_SUM(vs_squared_l2_f16_serial, uint16_t, vs_half_to_float, VS_SQUARE_OF_DIFFERENCE)

static int32_t vs_dot_i8_serial(const int16_t *q, const int8_t *o, size_t n) {
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (int32_t)q[i] * o[i];
    return sum;
}

static float vs_squared_norm_f16_serial(const uint16_t *o, size_t n) {
    float lane[VS_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        float x = vs_half_to_float(o[i]);
        lane[i % VS_LANES] += x * x;
    }
    return vs_reduce_serial(lane);
}

#endif
