/* One pass of coordinate ascent over the events of a Gaussian-Poisson mixture, fused by hand: logits, responsibilities
 * and their weighted sums in blocks that stay in cache, on every core. Compiled for K components and F features, so that
 * the compiler unrolls small loops. features is [F][num_events], coefficients and sums are [K][F]. */
#include <math.h>

/* Below it the vector exp of the C library takes a slow path. */
#define LOWEST -80

#ifndef BLOCK
#define BLOCK 256
#endif

static float pass_block(const float *restrict features, long stride, int length, const float *restrict coefficients,
                        double *restrict sums) {
    float logits[K][BLOCK] __attribute__((aligned(64)));
    float top[BLOCK] __attribute__((aligned(64))), total[BLOCK] __attribute__((aligned(64)));
    float log_normalizer = 0;
#pragma omp simd reduction(+ : log_normalizer)
    for (int n = 0; n < length; n++) {
        float x[F], row[K], highest = -INFINITY, sum = 0;
        for (int f = 0; f < F; f++) x[f] = features[f * stride + n];
        for (int k = 0; k < K; k++) {
            row[k] = 0;
            for (int f = 0; f < F; f++) row[k] += coefficients[k * F + f] * x[f];
            highest = row[k] > highest ? row[k] : highest;
        }
        for (int k = 0; k < K; k++) logits[k][n] = row[k] - highest > LOWEST ? row[k] - highest : LOWEST;
        top[n] = highest;
    }
    for (int k = 0; k < K; k++)
#pragma omp simd
        for (int n = 0; n < length; n++) logits[k][n] = expf(logits[k][n]);
#pragma omp simd
    for (int n = 0; n < length; n++) {
        total[n] = 0;
        for (int k = 0; k < K; k++) total[n] += logits[k][n];
    }
#pragma omp simd reduction(+ : log_normalizer)
    for (int n = 0; n < length; n++) log_normalizer += top[n] + logf(total[n]);
#pragma omp simd
    for (int n = 0; n < length; n++) total[n] = 1 / total[n];
    for (int f = 0; f < F; f++) {
        float scaled[BLOCK] __attribute__((aligned(64)));
#pragma omp simd
        for (int n = 0; n < length; n++) scaled[n] = total[n] * features[f * stride + n];
        for (int k = 0; k < K; k++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int n = 0; n < length; n++) sum += logits[k][n] * scaled[n];
            sums[k * F + f] += sum;
        }
    }
    return log_normalizer;
}

/* Returns sum_n log sum_k exp(C_k . f_n). */
double fused_mixture_pass(long num_events, int num_cores, const float *features, const float *coefficients, double *sums) {
    double log_normalizer = 0;
    for (int i = 0; i < K * F; i++) sums[i] = 0;
#pragma omp parallel for num_threads(num_cores) schedule(static) reduction(+ : log_normalizer) reduction(+ : sums[ : K * F])
    for (long start = 0; start < num_events; start += BLOCK) {
        int length = num_events - start < BLOCK ? num_events - start : BLOCK;
        log_normalizer += pass_block(features + start, num_events, length, coefficients, sums);
    }
    return log_normalizer;
}
