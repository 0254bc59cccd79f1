//! Numbers for the randomised tests: one fixed seed, so that a failure repeats itself.

/// A linear congruential generator (Knuth's MMIX constants); good enough to shuffle test data.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of such a generator repeat quickly: the high half is folded over them.
        self.0 ^ (self.0 >> 33)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
