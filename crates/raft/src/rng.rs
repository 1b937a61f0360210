//! The only source of chance: a seeded generator that the caller pays for.

/// SplitMix64: one word of state, every seed is good, and it is fast enough to forget about.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Something in `0..bound`. The bias of the remainder is far below what a timer can show.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn same_seed_same_numbers_and_all_values_occur() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let mut seen = [false; 10];
        for _ in 0..1000 {
            let n = a.below(10);
            assert_eq!(n, b.below(10));
            seen[n as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_ne!(Rng::new(7).next(), Rng::new(8).next());
    }
}
