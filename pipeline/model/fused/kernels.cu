// Kernels of an OLMo in bf16, compiled by NVRTC when a GPU is first used; each does in one pass over memory what torch does in
// several. Values are read and written 16 bytes at a time. bf16 comes in and goes out, sums are f32.
//
// Shapes: N rows (positions of all rows of a batch), d width, H query heads, K key and value heads, D head width, F feed-forward width.

typedef unsigned short half16; // the bits of a bf16
typedef unsigned int word;
typedef long long index;

struct alignas(16) Eight {
  word pairs[4];
};

__device__ __forceinline__ float low(word pair) {
  return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float high(word pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// Two f32 as bf16, rounded to the nearest, ties to even.
__device__ __forceinline__ word pack(float low, float high) {
  word pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ __forceinline__ void unpack(const Eight& from, float (&to)[8]) {
#pragma unroll
  for (int at = 0; at < 4; ++at) {
    to[2 * at] = low(from.pairs[at]);
    to[2 * at + 1] = high(from.pairs[at]);
  }
}

__device__ __forceinline__ Eight packed(const float (&from)[8]) {
  Eight to;
#pragma unroll
  for (int at = 0; at < 4; ++at) {
    to.pairs[at] = pack(from[2 * at], from[2 * at + 1]);
  }
  return to;
}

__device__ __forceinline__ Eight load(const half16* from) {
  return *reinterpret_cast<const Eight*>(from);
}

__device__ __forceinline__ void store(half16* to, const Eight& value) {
  *reinterpret_cast<Eight*>(to) = value;
}

// Where 8 pairs of a head lie: in the heads side by side, and in queries, keys or values by themselves.
struct Place {
  index together;
  half16* apart;
  bool turns;
};

__device__ __forceinline__ Place place(index row, int head, int first, int H, int K, int D, half16* q, half16* k, half16* v) {
  const index together = (row * (H + 2 * K) + head) * D + first;
  if (head < H) {
    return {together, q + (row * H + head) * D + first, true};
  }
  if (head < H + K) {
    return {together, k + (row * K + head - H) * D + first, true};
  }
  return {together, v + (row * K + head - H - K) * D + first, false};
}

// Turns 8 pairs by their angles, or back.
__device__ __forceinline__ void turn(Eight& lows, Eight& highs, const float* cos, const float* sin, float way) {
  float a[8], b[8];
  unpack(lows, a);
  unpack(highs, b);
#pragma unroll
  for (int at = 0; at < 8; ++at) {
    const float c = cos[at], s = way * sin[at];
    const float low = a[at] * c - b[at] * s;
    b[at] = b[at] * c + a[at] * s;
    a[at] = low;
  }
  lows = packed(a);
  highs = packed(b);
}

// Between heads side by side, [N, (H + 2 K) D], and queries [N, H, D], keys [N, K, D] and values [N, K, D]: apart, queries and keys are turned
// by the position of their row (`first` and on, modulo T), values stay as they are; on the way `back` they are turned back. A thread has 8
// pairs of a head.
__device__ __forceinline__ void turn_heads(
    bool back, half16* qkv, half16* q, half16* k, half16* v, const float* cos, const float* sin, index N, int T, int first, int H, int K, int D) {
  const int half = D / 2, parts = half / 8;
  const index thread = (index)blockIdx.x * blockDim.x + threadIdx.x;
  const int part = thread % parts, head = thread / parts % (H + 2 * K);
  const index row = thread / parts / (H + 2 * K);
  if (row >= N) {
    return;
  }
  const Place at = place(row, head, part * 8, H, K, D, q, k, v);
  half16* const together = qkv + at.together;
  const half16* from = back ? at.apart : together;
  half16* to = back ? together : at.apart;
  Eight lows = load(from), highs = load(from + half);
  if (at.turns) {
    const index angle = (first + row % T) * half + part * 8;
    turn(lows, highs, cos + angle, sin + angle, back ? -1.0f : 1.0f);
  }
  store(to, lows);
  store(to + half, highs);
}

extern "C" __global__ void split_and_turn(
    half16* qkv, half16* q, half16* k, half16* v, const float* cos, const float* sin, index N, int T, int first, int H, int K, int D) {
  turn_heads(false, qkv, q, k, v, cos, sin, N, T, first, H, K, D);
}

// The way back, for gradients.
extern "C" __global__ void turn_and_join(
    half16* qkv, half16* q, half16* k, half16* v, const float* cos, const float* sin, index N, int T, int first, int H, int K, int D) {
  turn_heads(true, qkv, q, k, v, cos, sin, N, T, first, H, K, D);
}

__device__ __forceinline__ float sigmoid(float x) {
  return 1.0f / (1.0f + __expf(-x));
}

// [N, 2 F], gate and up side by side, to silu(gate) * up, [N, F]. A thread has 8 values.
extern "C" __global__ void gate(const half16* gate_up, half16* out, index N, int F) {
  const index thread = (index)blockIdx.x * blockDim.x + threadIdx.x;
  const int parts = F / 8;
  const index row = thread / parts, first = thread % parts * 8;
  if (row >= N) {
    return;
  }
  float g[8], u[8];
  unpack(load(gate_up + row * 2 * F + first), g);
  unpack(load(gate_up + row * 2 * F + F + first), u);
#pragma unroll
  for (int at = 0; at < 8; ++at) {
    g[at] = g[at] * sigmoid(g[at]) * u[at];
  }
  store(out + row * F + first, packed(g));
}

// The gradient of gate and up, [N, 2 F], given that of what came of them.
extern "C" __global__ void gate_back(const half16* gradient, const half16* gate_up, half16* out, index N, int F) {
  const index thread = (index)blockIdx.x * blockDim.x + threadIdx.x;
  const int parts = F / 8;
  const index row = thread / parts, first = thread % parts * 8;
  if (row >= N) {
    return;
  }
  float d[8], g[8], u[8];
  unpack(load(gradient + row * F + first), d);
  unpack(load(gate_up + row * 2 * F + first), g);
  unpack(load(gate_up + row * 2 * F + F + first), u);
#pragma unroll
  for (int at = 0; at < 8; ++at) {
    const float s = sigmoid(g[at]), silu = g[at] * s;
    g[at] = d[at] * u[at] * s * (1.0f + g[at] * (1.0f - s));
    u[at] = d[at] * silu;
  }
  store(out + row * 2 * F + first, packed(g));
  store(out + row * 2 * F + F + first, packed(u));
}

// Sums over the 256 threads of a block; all threads get them.
__device__ __forceinline__ float2 block_sum(float2 own) {
  __shared__ float2 sums[8];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    own.x += __shfl_xor_sync(0xffffffffu, own.x, step);
    own.y += __shfl_xor_sync(0xffffffffu, own.y, step);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    sums[threadIdx.x / 32] = own;
  }
  __syncthreads();
  float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
  for (int at = 0; at < 8; ++at) {
    sum.x += sums[at].x;
    sum.y += sums[at].y;
  }
  return sum;
}

// Values of a row that a thread has: so many times 4, a block's width apart. A row has at most 4096.
constexpr int FOURS = 4;

// The norm of f32 rows without weights: [N, d] to bf16, with each row's mean and the reciprocal of its deviation, [N, 2]. Where there
// is a `branch`, bf16, it is added to the rows first, and `sum` gets what comes of it. A block has a row.
extern "C" __global__ void __launch_bounds__(256) add_and_norm(
    const float* x, const half16* branch, float* sum, half16* out, float2* statistics, int d, float epsilon) {
  const index row = blockIdx.x;
  float4 values[FOURS];
  float2 sums = make_float2(0.0f, 0.0f);
#pragma unroll
  for (int at = 0; at < FOURS; ++at) {
    const int first = (at * 256 + threadIdx.x) * 4;
    values[at] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (first < d) {
      float4 value = *reinterpret_cast<const float4*>(x + row * d + first);
      if (branch) {
        const uint2 added = *reinterpret_cast<const uint2*>(branch + row * d + first);
        value.x += low(added.x);
        value.y += high(added.x);
        value.z += low(added.y);
        value.w += high(added.y);
        *reinterpret_cast<float4*>(sum + row * d + first) = value;
      }
      values[at] = value;
      sums.x += value.x + value.y + value.z + value.w;
    }
  }
  const float mean = block_sum(sums).x / d;
  sums = make_float2(0.0f, 0.0f);
#pragma unroll
  for (int at = 0; at < FOURS; ++at) {
    if ((at * 256 + threadIdx.x) * 4 < d) {
      const float4 v = make_float4(values[at].x - mean, values[at].y - mean, values[at].z - mean, values[at].w - mean);
      sums.x += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      values[at] = v;
    }
  }
  const float scale = rsqrtf(block_sum(sums).x / d + epsilon);
  if (threadIdx.x == 0) {
    statistics[row] = make_float2(mean, scale);
  }
#pragma unroll
  for (int at = 0; at < FOURS; ++at) {
    const int first = (at * 256 + threadIdx.x) * 4;
    if (first < d) {
      const float4 v = values[at];
      const uint2 normed = make_uint2(pack(v.x * scale, v.y * scale), pack(v.z * scale, v.w * scale));
      *reinterpret_cast<uint2*>(out + row * d + first) = normed;
    }
  }
}

// The gradient of the rows that were normed, f32 [N, d], given that of the normed ones; `flowing`, f32, is added to it where it is there,
// and `narrow` gets the same in bf16 where it is wanted.
extern "C" __global__ void __launch_bounds__(256) add_and_norm_back(
    const half16* gradient, const float* flowing, const float* x, const float2* statistics, float* out, half16* narrow, int d) {
  const index row = blockIdx.x;
  const float mean = statistics[row].x, scale = statistics[row].y;
  float4 values[FOURS], normed[FOURS];
  float2 sums = make_float2(0.0f, 0.0f);
#pragma unroll
  for (int at = 0; at < FOURS; ++at) {
    const int first = (at * 256 + threadIdx.x) * 4;
    if (first < d) {
      const uint2 pairs = *reinterpret_cast<const uint2*>(gradient + row * d + first);
      const float4 g = make_float4(low(pairs.x), high(pairs.x), low(pairs.y), high(pairs.y));
      const float4 v = *reinterpret_cast<const float4*>(x + row * d + first);
      const float4 n =
          make_float4((v.x - mean) * scale, (v.y - mean) * scale, (v.z - mean) * scale, (v.w - mean) * scale);
      sums.x += g.x + g.y + g.z + g.w;
      sums.y += g.x * n.x + g.y * n.y + g.z * n.z + g.w * n.w;
      values[at] = g;
      normed[at] = n;
    }
  }
  const float2 means = block_sum(sums);
  const float shift = means.x / d, slope = means.y / d;
#pragma unroll
  for (int at = 0; at < FOURS; ++at) {
    const int first = (at * 256 + threadIdx.x) * 4;
    if (first < d) {
      const float4 g = values[at], n = normed[at];
      float4 found = make_float4(
          scale * (g.x - shift - slope * n.x), scale * (g.y - shift - slope * n.y), scale * (g.z - shift - slope * n.z),
          scale * (g.w - shift - slope * n.w));
      if (flowing) {
        const float4 more = *reinterpret_cast<const float4*>(flowing + row * d + first);
        found = make_float4(found.x + more.x, found.y + more.y, found.z + more.z, found.w + more.w);
      }
      *reinterpret_cast<float4*>(out + row * d + first) = found;
      if (narrow) {
        *reinterpret_cast<uint2*>(narrow + row * d + first) = make_uint2(pack(found.x, found.y), pack(found.z, found.w));
      }
    }
  }
}
