//! The monotonic clock, in whole nanoseconds, and its exact agreement with Python's floats.
//!
//! asyncio speaks of time in float seconds (`loop.time()` is `time.monotonic()`); this crate orders
//! deadlines by integer nanoseconds, the unit of the kernel. The two functions between them are here.
//!
//! Invariants:
//! C1. `as_seconds` is the float CPython computes for the same reading.
//! C2. `as_seconds` never decreases, so a smallest instant not before a float exists, and
//!     `not_before_seconds` returns it: `time >= not_before_seconds(s)` is `time.as_seconds() >= s`.

use std::ops::Add;
use std::time::Duration;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// What is further away than this is far, whatever the coarse clock has missed.
const FAR: Duration = Duration::from_secs(1);

/// An instant of `CLOCK_MONOTONIC`, in nanoseconds since the clock's own beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The beginning of the clock: every other instant is at or after it.
    pub const ZERO: Self = Self(0);
    /// The end of the clock, five centuries away: a deadline that is never reached.
    pub const MAX: Self = Self(u64::MAX);

    /// Reads the clock.
    #[inline]
    pub fn now() -> Self {
        let mut reading = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `reading` is a valid, writable timespec. The call cannot fail: CLOCK_MONOTONIC
        // always exists on Linux and the pointer is good, so its result carries no news.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut reading) };
        Self(reading.tv_sec as u64 * NANOSECONDS_PER_SECOND + reading.tv_nsec as u64)
    }

    /// Whether the instant is certainly not reached yet. Asks the kernel's last tick, which costs a fifth of `now`; false
    /// says nothing.
    #[inline]
    pub fn is_far(self) -> bool {
        let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: as in `now`. The coarse clock is the same clock, a tick late at most.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut tick) };
        let tick = Self(tick.tv_sec as u64 * NANOSECONDS_PER_SECOND + tick.tv_nsec as u64);
        self > tick.saturating_add(FAR)
    }

    /// The instant this many nanoseconds after the beginning of the clock.
    #[inline]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the beginning of the clock.
    #[inline]
    pub const fn as_nanoseconds(self) -> u64 {
        self.0
    }

    /// Seconds since the beginning of the clock, as `time.monotonic()` gives them (C1).
    ///
    /// CPython divides whole seconds as integers and all else as `float(ns) / 1e9`. For whole seconds
    /// both are exact during the clock's first 146 years, so one division serves.
    #[inline]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The smallest instant whose `as_seconds()` is at least `seconds` (C2).
    ///
    /// Negative numbers give the beginning of the clock; infinity and anything past the clock's end
    /// give its end. NaN gives the beginning: asyncio stops at the first timer with `when >= now`,
    /// which NaN never is, so such a timer runs at once.
    #[inline]
    pub fn not_before_seconds(seconds: f64) -> Self {
        if seconds.is_nan() || seconds <= 0.0 {
            return Self::ZERO;
        }
        // A cast of a float saturates. The product is rounded, so the guess may be off by a few.
        let guess = Self((seconds * 1e9).ceil() as u64);
        if guess.as_seconds() >= seconds {
            guess.lowest_reaching(seconds)
        } else {
            guess.first_reaching(seconds)
        }
    }

    /// Of the instants down from `self`, which reaches `seconds`, the smallest that still does.
    #[inline]
    fn lowest_reaching(self, seconds: f64) -> Self {
        let mut reaching = self.0;
        let mut step = 1;
        // Strides double while they succeed; far from the origin many instants share one float.
        loop {
            let candidate = reaching.saturating_sub(step);
            if candidate == reaching || Self(candidate).as_seconds() < seconds {
                return Self::bisect(candidate, reaching, seconds);
            }
            reaching = candidate;
            step *= 2;
        }
    }

    /// The smallest instant after `self`, which does not reach `seconds`, that does; or the clock's end.
    fn first_reaching(self, seconds: f64) -> Self {
        let mut short = self.0;
        let mut step = 1;
        loop {
            let candidate = short.saturating_add(step);
            if candidate == short {
                return Self::MAX;
            }
            if Self(candidate).as_seconds() >= seconds {
                return Self::bisect(short, candidate, seconds);
            }
            short = candidate;
            step *= 2;
        }
    }

    /// `reaching` reaches `seconds`; `short` does not, or is `reaching` itself.
    #[inline]
    fn bisect(mut short: u64, mut reaching: u64, seconds: f64) -> Self {
        while reaching - short > 1 {
            let middle = short + (reaching - short) / 2;
            if Self(middle).as_seconds() >= seconds {
                reaching = middle;
            } else {
                short = middle;
            }
        }
        Self(reaching)
    }

    /// How long it is from `earlier` until `self`; zero when `self` is not later.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `duration` later, or the end of the clock.
    #[inline]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

impl Add<Duration> for MonotonicTime {
    type Output = Self;

    /// Saturates at the end of the clock.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        self.saturating_add(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn assert_smallest(seconds: f64) {
        let time = MonotonicTime::not_before_seconds(seconds);
        assert!(time.as_seconds() >= seconds, "{seconds:e} came out early, at {time:?}");
        if time > MonotonicTime::ZERO {
            let before = MonotonicTime(time.0 - 1);
            assert!(before.as_seconds() < seconds, "{seconds:e} is already reached before {time:?}");
        }
    }

    #[test]
    fn now_never_goes_back_and_moves() {
        let first = MonotonicTime::now();
        let mut last = first;
        while last.saturating_since(first) < Duration::from_micros(50) {
            let next = MonotonicTime::now();
            assert!(next >= last);
            last = next;
        }
        assert!(first > MonotonicTime::ZERO);
    }

    #[test]
    fn whole_seconds_are_exact_as_in_cpython() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            // 146 years, the reach of the claim made at `as_seconds`.
            let seconds = random.below(4_600_000_000);
            let time = MonotonicTime(seconds * NANOSECONDS_PER_SECOND);
            assert_eq!(time.as_seconds(), seconds as f64);
        }
    }

    #[test]
    fn seconds_become_the_smallest_instant_not_before() {
        let mut random = Random::new(2);
        for _ in 0..20_000 {
            // Readings and floats beside them, at every magnitude of the clock.
            let nanoseconds = random.next() >> random.below(64);
            let seconds = MonotonicTime(nanoseconds).as_seconds();
            assert_smallest(seconds);
            assert_smallest(seconds.next_up());
            assert_smallest(seconds.next_down().max(0.0));
            assert_smallest(seconds + random.below(1 << 40) as f64 * 1e-10);
        }
    }

    #[test]
    fn a_reading_comes_back_from_its_own_float() {
        // Below 2^23 seconds (97 days) the floats lie closer than nanoseconds: each instant has its own.
        let mut random = Random::new(3);
        for _ in 0..20_000 {
            let time = MonotonicTime(random.below((1 << 23) * NANOSECONDS_PER_SECOND));
            assert_eq!(MonotonicTime::not_before_seconds(time.as_seconds()), time);
        }
    }

    #[test]
    fn floats_outside_the_clock_saturate() {
        for seconds in [0.0, -0.0, -1.0, -1e300, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(MonotonicTime::not_before_seconds(seconds), MonotonicTime::ZERO);
        }
        for seconds in [1e11, 1e300, f64::MAX, f64::INFINITY] {
            assert_eq!(MonotonicTime::not_before_seconds(seconds), MonotonicTime::MAX);
        }
        assert_eq!(MonotonicTime::not_before_seconds(f64::MIN_POSITIVE), MonotonicTime(1));
        assert_smallest(MonotonicTime::MAX.as_seconds());
    }

    #[test]
    fn arithmetic_saturates() {
        let time = MonotonicTime(5);
        assert_eq!(time + Duration::from_nanos(7), MonotonicTime(12));
        assert_eq!(time.saturating_add(Duration::MAX), MonotonicTime::MAX);
        assert_eq!(MonotonicTime::MAX + Duration::from_nanos(1), MonotonicTime::MAX);
        assert_eq!(time.saturating_since(MonotonicTime(9)), Duration::ZERO);
        assert_eq!(MonotonicTime(9).saturating_since(time), Duration::from_nanos(4));
    }
}
