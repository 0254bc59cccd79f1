//! The kernel's release, where a call of it cannot be asked whether it tells the truth.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Whether a read that must not wait says truly how much there is. Linux 5.9 and 5.10 may end it early, or with zero bytes as
/// at the end of the file (preadv2(2), BUGS); what is older is slower in other ways too, and is not told apart from them.
pub(crate) fn reads_now_truly() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| release().is_some_and(|release| release >= (5, 11)))
}

fn release() -> Option<(u32, u32)> {
    let mut names = MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: the kernel fills `names` when it succeeds; its texts end with a null byte.
    let text = unsafe {
        if libc::uname(names.as_mut_ptr()) < 0 {
            return None;
        }
        CStr::from_ptr(names.assume_init_ref().release.as_ptr()).to_str().ok()?.to_owned()
    };
    parse(&text)
}

/// The first two numbers of `5.10.0-28-amd64`.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        let truly = |text| parse(text).is_some_and(|release| release >= (5, 11));
        assert!(!truly("5.9.16") && !truly("5.10.0-28-amd64") && !truly("4.4.0") && !truly("5.10.220+"));
        assert!(truly("5.11.0") && truly("6.1-rc3") && truly("6.18.44-fc-v669") && truly("10.0.0"));
        assert!(!truly("") && !truly("linux") && !truly("6"));
        assert!(release().is_some());
    }
}
