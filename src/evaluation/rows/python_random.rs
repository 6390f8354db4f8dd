//! Python's `random.Random`: the Mersenne Twister MT19937, and what CPython 3.11 makes of its numbers.

const N: usize = 624;
const M: usize = 397;

/// A generator that returns the same values as CPython's `random.Random(seed)`.
#[derive(Clone)]
pub struct PythonRandom {
    state: [u32; N],
    /// The next word of the state to return.
    at: usize,
}

impl PythonRandom {
    /// Returns the generator `random.Random(seed)`.
    pub fn new(seed: u64) -> PythonRandom {
        let key = [seed as u32, (seed >> 32) as u32];
        PythonRandom::by_array(if key[1] == 0 { &key[..1] } else { &key })
    }

    /// `init_by_array` of Matsumoto and Nishimura's mt19937ar.c.
    fn by_array(key: &[u32]) -> PythonRandom {
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let before = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        for step in 0..N.max(key.len()) {
            let j = step % key.len();
            i = mix(&mut state, i, 1_664_525, key[j].wrapping_add(j as u32));
        }
        for _ in 0..N - 1 {
            i = mix(&mut state, i, 1_566_083_941, (i as u32).wrapping_neg());
        }
        state[0] = 0x8000_0000;
        PythonRandom { state, at: N }
    }

    fn word(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Returns `random()`: a number from 0 up to, but not including, 1.
    pub fn random(&mut self) -> f64 {
        let (a, b) = (self.word() >> 5, self.word() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Returns `uniform(a, b)`.
    pub fn uniform(&mut self, a: f64, b: f64) -> f64 {
        a + (b - a) * self.random()
    }

    /// Returns `randrange(n)`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "there is no number below 0");
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let number = self.word() >> (32 - bits);
            if number < n {
                return number;
            }
        }
    }

    /// Returns `choice(items)`.
    ///
    /// # Panics
    /// If there are no items.
    pub fn choice<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    /// Returns the indices of `sample(items, count)` for `n` items, at most `n`.
    pub fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let count = count.min(n);
        // Up to this many items, CPython moves them in a list; for more, it draws until one is new.
        let mut set_size = 21;
        if count > 5 {
            set_size += 4usize.pow(((count * 3) as f64).log(4.0).ceil() as u32);
        }
        if n <= set_size {
            let mut pool: Vec<_> = (0..n).collect();
            (0..count).map(|i| pool.swap_remove(self.below((n - i) as u32) as usize)).collect()
        } else {
            let mut taken = std::collections::HashSet::new();
            let mut draw = || loop {
                let index = self.below(n as u32) as usize;
                if taken.insert(index) {
                    return index;
                }
            };
            (0..count).map(|_| draw()).collect()
        }
    }
}

/// Mixes the word `i` with the one before it and with `added`; returns the index of the next word.
fn mix(state: &mut [u32; N], i: usize, factor: u32, added: u32) -> usize {
    let before = state[i - 1] ^ (state[i - 1] >> 30);
    state[i] = (state[i] ^ before.wrapping_mul(factor)).wrapping_add(added);
    if i + 1 < N {
        return i + 1;
    }
    state[0] = state[N - 1];
    1
}
