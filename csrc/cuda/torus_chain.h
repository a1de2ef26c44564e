// The hot path: tori through a chain of 3x3 convolutions with ReLU, zero padding and stride 1,
// without leaving registers. A lane holds two neighbouring columns of a strip of kRows rows; a
// torus has one strip or two, and a warp holds as many tori side by side as fit into 32 lanes.
// Neighbours in a row come by shuffle, and so do the two rows where strips meet. Where two planes
// of a torus meet (a seam), and at the image's border, factors 0 cut the sums.
//
// The state is K and U = K + T: in the NTK parameterization T' = a/9 S_U + b, so that a ReLU layer
// (conv_relu.h) is
//   U <- kappa0/2 (a/9 S_U + b) + K.
// Without bias the state before such a layer is held times a/18: then kappa0 and c = (a/18 S_K) /
// (sqrt(qq')/2) need no factors of the layer, and B's coefficients are the program's own constants.
#pragma once

#include "../math/conv_relu.h"
#include "tori.h"
#include "warp.h"

namespace ntk {

template <class T>
constexpr int kLargestSide = sizeof(T) == 4 ? 32 : 16;  // of an image whose torus fits into a warp

#if defined(__CUDA_ARCH__)
#define NTK_UNROLL _Pragma("unroll")
#else
#define NTK_UNROLL
#endif

// The number as the compiler cannot know it from before.
NTK_HD std::int64_t anew(std::int64_t x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(x));
#endif
  return x;
}

enum class StepKind : int { affine, relu, relu_positive };

// A layer from the window sums S_K, S_U; `next`: what the state after it is held times.
template <class T>
struct ChainStep {
  StepKind kind;
  Affine<T> map;       // affine: of S_K and S_U; relu with bias: K'/2 = a S_K + b, so U'
  T next, next_by_pi;  // relu; (affine has it in map)
  std::int64_t table;  // where sqrt(q/2) of the ReLU's variances q starts
};

// Steps of one launch: they travel as the kernel's parameter, which reaches all lanes at once.
template <class T>
constexpr int kMostSteps = sizeof(T) == 4 ? 32 : 10;
constexpr int kFewSteps = 4;  // of short chains

// Where a lane is: columns 2 pair and 2 pair + 1 of rows strip kRows and on of torus number `unit`
// (see Tori), at displacement (dh, dw). row, col: its place in a plane of PairLayout, of p and of
// p'.
struct ChainLane {
  bool active;
  int lane, unit, image_pair, strip, pair, dh, dw;
  std::int64_t row, col;
};

enum class ChainOutput : int {
  state,   // K and T of all elements
  pooled,  // partial sums of a 2x2 pool in p and p' (PoolPartsOp)
  sums,    // one number each of K and T per torus
};

// kSide: h = w = 8, 16 or 32; 0: any. kShort: of few layers, so that loads wait longest and more
// warps help.
template <class T, int kSide, bool kBias, bool kShort = false>
struct TorusChain {
  static constexpr int kRows = chain_rows<T>(kSide, kSide);
  static constexpr bool kStrips = kSide == 0 || kSide > kRows;  // may there be two?

  int count;
  Tori<T> s;  // geometry; where `load`, the state before; where not `sums`, after
  // [dh][strips kRows + 1]: does row r - 1 count for row r? Of idle lanes, dh = h: never.
  const T* joins;
  int units;  // tori of the batch
  Batch<T> batch;
  int channels;
  T first;    // what the state is held times before the first step
  bool load;  // start from s, else from the pixels
  ChainOutput output;
  double *sum_k, *sum_t;  // [unit]
  ChainStep<T> steps[kMostSteps<T>];

  NTK_HD int width() const { return kSide ? kSide : s.w; }
  NTK_HD int height() const { return kSide ? kSide : s.h; }
  NTK_HD int rows() const { return kSide || s.h > kRows ? kRows : s.h; }
  NTK_HD PairLayout layout() const { return pair_layout<T>(height(), width()); }
  NTK_HD int strips() const { return (height() + kRows - 1) / kRows; }
  NTK_HD int lanes() const { return layout().pairs * strips(); }
  NTK_HD int side_by_side() const { return kWarp / lanes(); }
  // Warps that the launch needs.
  std::int64_t warps() const { return (units + side_by_side() - 1) / side_by_side(); }

  NTK_HD ChainLane place(std::int64_t warp, int lane) const {
    const PairLayout at = layout();
    ChainLane l;
    l.lane = lane;
    const int torus = lane / lanes(), inside = lane % lanes();
    l.unit = int(warp) * side_by_side() + torus;
    l.active = torus < side_by_side() && l.unit < units;
    if (!l.active) l.unit = units - 1;
    const int plane = l.unit % (s.rows * s.cols);
    l.image_pair = l.unit / (s.rows * s.cols);
    l.dh = s.dh[plane / s.cols];
    l.dw = s.dw[plane % s.cols];
    l.strip = inside / at.pairs;
    l.pair = inside % at.pairs;
    l.row = at.at(0, l.strip * kRows, l.pair);
    const int q = (2 * l.pair + l.dw) % width();
    l.col = at.at(q % 2, l.strip * kRows + l.dh, q / 2);
    return l;
  }

  // What a lane needs in every layer.
  template <class W>
  struct Frame {
    using V = typename W::V;
    typename W::I row_at, col_at, joins_at;  // into the tables
    // Is it of the second strip; the lane of the other strip.
    typename W::I lower, partner;
    V from_left, middle, from_right;  // does a column count for its neighbour?
  };

  template <class W>
  NTK_HD Frame<W> frame(const typename W::template Each<ChainLane>& lanes) const {
    using Lane = const ChainLane&;
    const int w = width(), pairs = layout().pairs;
    Frame<W> f;
    f.row_at = W::integers(lanes, [&](Lane l) {
      return batch.row[l.image_pair] * batch.row_images.table_size + l.row;
    });
    f.col_at = W::integers(lanes, [&](Lane l) {
      return batch.col[l.image_pair] * batch.col_images.table_size + l.col;
    });
    f.lower = W::integers(lanes, [&](Lane l) { return std::int64_t(l.strip); });
    f.partner = W::integers(
        lanes, [&](Lane l) { return std::int64_t(l.strip ? l.lane - pairs : l.lane + pairs); });
    // No neighbour counts for an idle lane, whose own are of other tori: its values stay finite, as
    // 0 of them must.
    f.joins_at = W::integers(lanes, [&](Lane l) {
      const int dh = l.active ? l.dh : height();
      return std::int64_t(dh * (strips() * kRows + 1) + l.strip * kRows);
    });
    // Does column c - 1 count for column c?
    const auto joins = [&](Lane l, int c) {
      return T(l.active && c > 0 && c < w && c != w - l.dw);
    };
    f.from_left = W::values(lanes, [&](Lane l) { return joins(l, 2 * l.pair); });
    f.middle = W::values(lanes, [&](Lane l) { return joins(l, 2 * l.pair + 1); });
    f.from_right = W::values(lanes, [&](Lane l) { return joins(l, 2 * l.pair + 2); });
    return f;
  }

  template <class W>
  NTK_HD void run(std::int64_t warp) const {
    const auto lanes = W::each([&](int lane) { return place(warp, lane); });
    // Into the registers.
    const Frame<W> f = frame<W>(lanes);
    typename W::V k[kRows][2], u[kRows][2];
    start<W>(lanes, k, u);
    // The layers.
    for (int step = 0; step < count;) {
      // Two a turn: the state changes its registers, and only at the end of a turn must it return
      // to the first ones.
      for (; !kShort && step + 1 < count && positive(step) && positive(step + 1); step += 2) {
        layer<W, StepKind::relu_positive>(steps[step], f, k, u);
        layer<W, StepKind::relu_positive>(steps[step + 1], f, k, u);
      }
      while (step < count && positive(step))
        layer<W, StepKind::relu_positive>(steps[step++], f, k, u);
      if (step == count) break;
      if (steps[step].kind == StepKind::relu)
        layer<W, StepKind::relu>(steps[step++], f, k, u);
      else
        layer<W, StepKind::affine>(steps[step++], f, k, u);
    }
    // And out.
    // So that no register keeps the places through the layers.
    const std::int64_t same = anew(warp);
    const auto ends = W::each([&](int lane) { return place(same, lane); });
    if (output == ChainOutput::sums)
      put_sums<W>(ends, k, u);
    else if (output == ChainOutput::state)
      put_state<W>(ends, k, u);
    else
      put_pooled<W>(ends, k, u);
  }

  NTK_HD bool positive(int step) const { return steps[step].kind == StepKind::relu_positive; }

  // The rows of the other strip next to this one.
  template <class W, class V>
  NTK_HD void meet(const Frame<W>& f, const V (&x)[kRows][2], V (&other)[2]) const {
    NTK_UNROLL for (int c = 0; c < 2; ++c) other[c] =
        kStrips ? W::from(W::choose(f.lower, x[0][c], x[kRows - 1][c]), f.partner) : W::zero();
  }

  // Window sums of row r; `above` holds the row above as it was, and receives row r. from_above,
  // from_below: do they count?
  template <class W, class V>
  NTK_HD void window(const Frame<W>& f, int r, const V& from_above, const V& from_below,
                     const V (&x)[kRows][2], const V (&other)[2], V (&above)[2],
                     V (&sum)[2]) const {
    V down[2];
    NTK_UNROLL for (int c = 0; c < 2; ++c) {
      down[c] = x[r][c];
      if (kStrips || r > 0) down[c] = down[c] + from_above * above[c];
      if (kStrips || r + 1 < kRows)
        down[c] = down[c] + from_below * (r + 1 < kRows ? x[r + 1][c] : other[c]);
      above[c] = x[r][c];
    }
    const V left = W::left(down[1]), right = W::right(down[0]);
    sum[0] = down[0] + f.from_left * left + f.middle * down[1];
    sum[1] = down[1] + f.middle * down[0] + f.from_right * right;
  }

  // The state after a ReLU layer at one point, from its window sums and root = sqrt(qq')/2.
  template <bool kPositive, class V>
  NTK_HD void relu(const ChainStep<T>& s, const V& root, V sum_k, V sum_u, V& k, V& u) const {
    if (kBias) sum_k = s.map.nngp(sum_k);
    if (kBias) sum_u = s.map.nngp(sum_u);
    const V corr = correlation<T, kPositive>(sum_k, root), share = s.next_by_pi * sine(corr);
    const auto coefficient = [](int i) { return T(kPi * Coefficients<T>::B::at(i)); };
    const V kappa0 = kappa0_times<T, kPositive>(s.next, corr, share, coefficient);
    k = kappa0 * sum_k + root * share;
    u = kappa0 * sum_u + k;
  }

  template <class W, StepKind kKind, class V>
  NTK_HD void layer(const ChainStep<T>& s, const Frame<W>& f, V (&k)[kRows][2],
                    V (&u)[kRows][2]) const {
    const T *row_table = batch.row_images.table + s.table,
            *col_table = batch.col_images.table + s.table;
    // The rows beyond the strip's ends.
    V other_k[2], other_u[2], above_k[2], above_u[2];
    meet<W>(f, k, other_k);
    meet<W>(f, u, other_u);
    NTK_UNROLL for (int c = 0; c < 2; ++c) {
      above_k[c] = other_k[c];
      above_u[c] = other_u[c];
    }
    // Row by row, in place: window sums, then what the layer makes of them.
    V from_below = W::load(joins, f.joins_at, 0);
    NTK_UNROLL for (int r = 0; r < kRows; ++r) {
      if (kSide == 0 && r >= rows()) break;
      V sum_k[2], sum_u[2], mine[2], theirs[2];
      const V from_above = from_below;
      from_below = W::load(joins, f.joins_at, r + 1);
      window<W>(f, r, from_above, from_below, k, other_k, above_k, sum_k);
      window<W>(f, r, from_above, from_below, u, other_u, above_u, sum_u);
      if constexpr (kKind != StepKind::affine) {
        W::load2(row_table, f.row_at, std::int64_t(r) * 2 * layout().pairs, mine[0], mine[1]);
        W::load2(col_table, f.col_at, std::int64_t(r) * 2 * layout().pairs, theirs[0], theirs[1]);
      }
      NTK_UNROLL for (int c = 0; c < 2; ++c) {
        if constexpr (kKind == StepKind::affine) {
          u[r][c] = s.map.ntk(sum_k[c], sum_u[c]);
          k[r][c] = s.map.nngp(sum_k[c]);
        } else {
          relu<kKind == StepKind::relu_positive>(s, mine[c] * theirs[c], sum_k[c], sum_u[c],
                                                 k[r][c], u[r][c]);
        }
      }
    }
  }

  // Where the lane's first element lies in the state.
  NTK_HD std::int64_t corner(const ChainLane& l) const {
    return (std::int64_t(l.unit) * height() + l.strip * kRows) * width() + 2 * l.pair;
  }
  // Is row r, column c of the lane inside the image?
  NTK_HD bool inside(const ChainLane& l, int r, int c) const {
    return kSide || (l.strip * kRows + r < height() && 2 * l.pair + c < width());
  }
  // Where it lies, or -1 outside and of idle lanes.
  NTK_HD std::int64_t element(const ChainLane& l, int r, int c) const {
    return l.active && inside(l, r, c) ? corner(l) + r * width() + c : -1;
  }

  template <class W, class V>
  NTK_HD void start(const typename W::template Each<ChainLane>& lanes, V (&k)[kRows][2],
                    V (&u)[kRows][2]) const {
    NTK_UNROLL for (int r = 0; r < kRows; ++r) k[r][0] = k[r][1] = u[r][0] = u[r][1] = W::zero();
    load ? start_from_state<W>(lanes, k, u) : start_from_pixels<W>(lanes, k, u);
  }
  template <class W, class V>
  NTK_HD void start_from_state(const typename W::template Each<ChainLane>& lanes, V (&k)[kRows][2],
                               V (&u)[kRows][2]) const {
    const auto at = W::integers(lanes, [&](const ChainLane& l) { return corner(l); });
    NTK_UNROLL for (int r = 0; r < kRows; ++r) {
      if (kSide == 0 && r >= rows()) break;
      V t[2];
      if constexpr (kSide) {
        W::load2(s.k, at, r * width(), k[r][0], k[r][1]);
        W::load2(s.t, at, r * width(), t[0], t[1]);
      } else {
        NTK_UNROLL for (int c = 0; c < 2; ++c) {
          const auto each =
              W::integers(lanes, [&](const ChainLane& l) { return element(l, r, c); });
          k[r][c] = W::load_or_zero(s.k, each, 0);
          t[c] = W::load_or_zero(s.t, each, 0);
        }
      }
      NTK_UNROLL for (int c = 0; c < 2; ++c) {
        k[r][c] = first * k[r][c];
        u[r][c] = k[r][c] + first * t[c];
      }
    }
  }
  // The pixels' products.
  template <class W, class V>
  NTK_HD void start_from_pixels(const typename W::template Each<ChainLane>& lanes, V (&k)[kRows][2],
                                V (&u)[kRows][2]) const {
    using Lane = const ChainLane&;
    const Batch<T>& b = batch;
    const auto row_at = W::integers(
        lanes, [&](Lane l) { return b.row[l.image_pair] * b.row_images.pixels_size + l.row; });
    const auto col_at = W::integers(
        lanes, [&](Lane l) { return b.col[l.image_pair] * b.col_images.pixels_size + l.col; });
    const T *x = b.row_images.pixels, *y = b.col_images.pixels;
    for (int channel = 0; channel < channels; ++channel, x += layout().size(), y += layout().size())
      NTK_UNROLL for (int r = 0; r < kRows; ++r) {
        if (kSide == 0 && r >= rows()) break;
        V mine[2], theirs[2];
        W::load2(x, row_at, r * 2 * layout().pairs, mine[0], mine[1]);
        W::load2(y, col_at, r * 2 * layout().pairs, theirs[0], theirs[1]);
        NTK_UNROLL for (int c = 0; c < 2; ++c) k[r][c] = k[r][c] + mine[c] * theirs[c];
      }
    const T scale = first / T(channels);
    NTK_UNROLL for (int r = 0; r < kRows; ++r) NTK_UNROLL for (int c = 0; c < 2; ++c) {
      k[r][c] = scale * k[r][c];
      u[r][c] = k[r][c];
    }
  }

  template <class W, class V>
  NTK_HD void put_state(const typename W::template Each<ChainLane>& lanes, const V (&k)[kRows][2],
                        const V (&u)[kRows][2]) const {
    NTK_UNROLL for (int r = 0; r < kRows; ++r) NTK_UNROLL for (int c = 0; c < 2; ++c) {
      if (kSide == 0 && r >= rows()) break;
      const auto at = W::integers(lanes, [&](const ChainLane& l) { return element(l, r, c); });
      W::store(s.k, at, 0, k[r][c]);
      W::store(s.t, at, 0, u[r][c] - k[r][c]);
    }
  }

  // Sums over the torus: of the lane's elements, then of the lanes.
  template <class W, class V>
  NTK_HD void put_sums(const typename W::template Each<ChainLane>& lanes, const V (&k)[kRows][2],
                       const V (&u)[kRows][2]) const {
    V total_k = W::zero(), total_t = W::zero();
    NTK_UNROLL for (int r = 0; r < kRows; ++r) NTK_UNROLL for (int c = 0; c < 2; ++c) {
      if (kSide == 0 && r >= rows()) break;
      V sum_k = k[r][c], sum_t = u[r][c] - k[r][c];
      if (kSide == 0) {
        const V inside =
            W::values(lanes, [&](const ChainLane& l) { return T(element(l, r, c) >= 0); });
        sum_k = inside * sum_k;
        sum_t = inside * sum_t;
      }
      total_k = total_k + sum_k;
      total_t = total_t + sum_t;
    }
    for (int by = kWarp / 2; by > 0; by /= 2) {  // a lane adds the one `by` further on in its torus
      const V inside =
          W::each([&](int lane) { return T(lane % this->lanes() + by < this->lanes()); });
      total_k = total_k + inside * W::right(total_k, by);
      total_t = total_t + inside * W::right(total_t, by);
    }
    const auto at = W::integers(lanes, [&](const ChainLane& l) -> std::int64_t {
      return l.active && l.strip == 0 && l.pair == 0 ? l.unit : -1;
    });
    W::store(sum_k, at, 0, total_k);
    W::store(sum_t, at, 0, total_t);
  }

  // Pooled 2x2 in p and p'; PoolPartsOp says which sums a torus has. For even h and w.
  template <class W, class V>
  NTK_HD void put_pooled(const typename W::template Each<ChainLane>& lanes, const V (&k)[kRows][2],
                         const V (&u)[kRows][2]) const {
    Parts<W> parts;
    parts.even_h = W::values(lanes, [](const ChainLane& l) { return T(l.dh % 2 == 0); });
    parts.even_w = W::values(lanes, [](const ChainLane& l) { return T(l.dw % 2 == 0); });
    NTK_UNROLL for (int part = 0; part < 4; ++part) {
      parts.at[part] = W::integers(lanes, [&](const ChainLane& l) -> std::int64_t {
        if (!l.active || (part / 2 && l.dh % 2 == 0) || (part % 2 && l.dw % 2 == 0)) return -1;
        const int row = part * (height() / 2) + l.strip * kRows / 2;
        return std::int64_t(l.unit) * height() * width() + row * (width() / 2) + l.pair;
      });
    }
    NTK_UNROLL for (int r = 0; r + 1 < kRows; r += 2) {
      if (kSide == 0) {
        if (r >= rows()) break;
        const auto here =
            W::integers(lanes, [&](const ChainLane& l) { return std::int64_t(inside(l, r, 0)); });
        const auto none = W::integers(lanes, [](const ChainLane&) { return std::int64_t(-1); });
        NTK_UNROLL for (int part = 0; part < 4; ++part) parts.at[part] =
            W::choose(here, parts.at[part], none);
      }
      put_block<W>(parts, s.k, r, k[r], k[r + 1]);
      const V upper[2] = {u[r][0] - k[r][0], u[r][1] - k[r][1]};
      const V lower[2] = {u[r + 1][0] - k[r + 1][0], u[r + 1][1] - k[r + 1][1]};
      put_block<W>(parts, s.t, r, upper, lower);
    }
  }
  // Where a lane's part number 2 row part + column part starts, or -1: an even displacement has no
  // second part.
  template <class W>
  struct Parts {
    typename W::V even_h, even_w;
    typename W::I at[4];
  };
  template <class W, class V>
  NTK_HD void put_block(const Parts<W>& parts, T* to, int r, const V (&upper)[2],
                        const V (&lower)[2]) const {
    const int row = r / 2 * (width() / 2);
    const V first[2] = {upper[0] + parts.even_h * lower[0], upper[1] + parts.even_h * lower[1]};
    W::store(to, parts.at[0], row, first[0] + parts.even_w * first[1]);
    W::store(to, parts.at[1], row, first[1]);
    W::store(to, parts.at[2], row, lower[0] + parts.even_w * lower[1]);
    W::store(to, parts.at[3], row, lower[1]);
  }
};

}  // namespace ntk
