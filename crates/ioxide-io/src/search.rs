//! Finding bytes in bytes, at the speed of the C library.

/// Where `needle` begins in `haystack`. An empty needle is found at once.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.len() > haystack.len() {
        return None;
    }
    // SAFETY: both slices have the lengths that are given; the answer points into `haystack` or is null.
    unsafe {
        let start = haystack.as_ptr();
        let found = match *needle {
            [only] => libc::memchr(start.cast(), i32::from(only), haystack.len()),
            _ => libc::memmem(start.cast(), haystack.len(), needle.as_ptr().cast(), needle.len()),
        };
        (!found.is_null()).then(|| found.cast::<u8>().offset_from(start) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn finds_the_first_occurrence() {
        assert_eq!(find(b"one\ntwo\n", b"\n"), Some(3));
        assert_eq!(find(b"ababac", b"abac"), Some(2));
        assert_eq!(find(b"abc", b""), Some(0));
    }

    #[test]
    fn finds_nothing_where_there_is_nothing() {
        assert_eq!(find(b"", b"\n"), None);
        assert_eq!(find(b"ab", b"abc"), None);
        assert_eq!(find(b"ababab", b"ba\n"), None);
    }
}
