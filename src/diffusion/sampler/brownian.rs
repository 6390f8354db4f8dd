//! The Brownian motion from which k-diffusion's stochastic samplers take their noise, as `torchsde.BrownianTree` draws it:
//! one motion in σ for each seed, whatever the steps. Its halves, their halves and so on are drawn by Brownian bridges, each
//! from a seed of NumPy's `SeedSequence`, until a point is reached to six digits.

use std::array::from_fn;

use crate::noise::Generator;

/// Words of the pool of torchsde's seed sequences.
const POOL: usize = 24;

/// More halves than six digits need, of any σ_max.
const MOST_HALVES: u64 = 60;

/// A Brownian motion B(σ) over [σ_min, σ_max], with B(σ_min) = 0.
pub(super) struct BrownianTree {
    seed: u64,
    /// The number of independent motions: the elements of a latent.
    n: usize,
    low: f64,
    high: f64,
    /// B(σ_max).
    whole: Vec<f64>,
    /// The last point that was asked for: the next step begins there.
    last: Option<(f64, Vec<f64>)>,
}

impl BrownianTree {
    /// Creates the motion of a seed for latents of `n` elements.
    pub fn new(seed: u64, n: usize, low: f64, high: f64) -> Self {
        let [first] = seeds(seed, &[]);
        let spread = (high - low).max(0.0).sqrt();
        let whole = normals(first, n).into_iter().map(|x| x * spread).collect();
        BrownianTree { seed, n, low: digits(low), high: digits(high), whole, last: None }
    }

    /// Returns (B(b) − B(a)) / √|b − a|, which has unit variance, for a step from σ = a to σ = b.
    pub fn increment(&mut self, a: f64, b: f64) -> Vec<f32> {
        let (from, to) = (self.at(a), self.at(b));
        let scale = (a - b).abs().sqrt();
        if scale == 0.0 {
            return vec![0.0; self.n];
        }
        from.iter().zip(to).map(|(from, to)| ((to - from) / scale) as f32).collect()
    }

    /// Returns B(σ).
    fn at(&mut self, sigma: f64) -> Vec<f64> {
        let sigma = digits(sigma.clamp(self.low, self.high));
        if let Some((at, value)) = &self.last
            && *at == sigma
        {
            return value.clone();
        }
        let value = self.descend(sigma);
        self.last = Some((sigma, value.clone()));
        value
    }

    /// From the whole interval to its half, quarter and so on that begins or ends at σ.
    fn descend(&self, sigma: f64) -> Vec<f64> {
        let (mut low, mut high) = (self.low, self.high);
        let mut start = vec![0.0; self.n];
        let mut increment = self.whole.clone();
        let (mut number, mut depth) = (0u64, 0u64);
        while sigma != low && sigma != high && depth < MOST_HALVES {
            let middle = digits(0.5 * (high + low));
            let (left, right, whole) = (middle - low, high - middle, high - low);
            let [seed] = seeds(self.seed, &[number, depth]);
            let deviation = (left * right / whole).max(0.0).sqrt();
            let noise = normals(seed, self.n);
            let first: Vec<f64> = increment.iter().zip(noise).map(|(w, x)| left / whole * w + deviation * x).collect();
            depth += 1;
            if sigma < middle || sigma == middle && sigma != high {
                // The first half; its end is the point, if that is the middle.
                (high, increment, number) = (middle, first, 2 * number);
            } else {
                start.iter_mut().zip(&first).for_each(|(b, w)| *b += w);
                increment.iter_mut().zip(first).for_each(|(all, w)| *all -= w);
                (low, number) = (middle, 2 * number + 1);
            }
        }
        if sigma != low {
            start.iter_mut().zip(increment).for_each(|(b, w)| *b += w);
        }
        start
    }
}

/// Standard normal numbers of a seed.
fn normals(seed: u32, n: usize) -> Vec<f64> {
    Generator::new(u64::from(seed)).normals(n).into_iter().map(f64::from).collect()
}

/// Rounds to six digits after the point, exactly as Python's `round`.
fn digits(x: f64) -> f64 {
    format!("{x:.6}").parse().unwrap_or(x)
}

/// The first state words of NumPy's `SeedSequence(entropy, spawn_key)` with 24 words of pool (O'Neill's `seed_seq_fe`).
fn seeds<const N: usize>(entropy: u64, spawn_key: &[u64]) -> [u32; N] {
    let mut words = words_of(entropy);
    if !spawn_key.is_empty() {
        words.resize(POOL.max(words.len()), 0);
    }
    words.extend(spawn_key.iter().flat_map(|key| words_of(*key)));

    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |mut value: u32| {
        value ^= constant;
        constant = constant.wrapping_mul(0x931e_8875);
        value = value.wrapping_mul(constant);
        value ^ value >> 16
    };
    let mix = |x: u32, y: u32| {
        let value = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
        value ^ value >> 16
    };
    let mut pool: [u32; POOL] = from_fn(|i| hash(words.get(i).copied().unwrap_or(0)));
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mix(pool[to], hash(pool[from]));
        }
    }
    for word in words.iter().skip(POOL) {
        for slot in &mut pool {
            *slot = mix(*slot, hash(*word));
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    from_fn(|i| {
        let mut value = pool[i % POOL] ^ constant;
        constant = constant.wrapping_mul(0x58f3_8ded);
        value = value.wrapping_mul(constant);
        value ^ value >> 16
    })
}

/// A number as 32-bit words, the lowest first; 0 is one word.
fn words_of(n: u64) -> Vec<u32> {
    let (low, high) = (n as u32, (n >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.SeedSequence(entropy, spawn_key=…, pool_size=24).generate_state(2)`, NumPy 2.
    #[test]
    fn seeds_are_numpys() {
        assert_eq!(seeds(0, &[]), [4025752534, 2687548107]);
        assert_eq!(seeds(7, &[]), [1376543887, 623213690]);
        assert_eq!(seeds(7, &[0, 0]), [261727054, 4049524988]);
        assert_eq!(seeds((1 << 40) + 3, &[5, 3]), [3262805002, 3352222441]);
        assert_eq!(seeds((1 << 32) - 1, &[1, 1]), [699286931, 880840223]);
    }
}
