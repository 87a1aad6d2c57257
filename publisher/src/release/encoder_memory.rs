//! How much memory making payloads takes at most. It is told from sizes alone, before the work begins.

use super::ReleaseError;
use super::full::ESTIMATE_BYTES;
use super::patches::ENCODER_IMAGE_BYTES_MAX;

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderWork {
    /// Bytes of each base. Without one there is no patch.
    pub bases: Vec<u64>,
    /// Bytes of the image.
    pub image: u64,
    /// Patches and payloads that are made at once.
    pub jobs: usize,
    /// Bytes of memory that a device has for decoding a patch.
    pub decoder: u64,
    /// Most bytes of the full payload's dictionary.
    pub dictionary: u64,
    /// Whether the full payload is made, and not only estimated.
    pub full: bool,
}

/// The compressor's memory for each byte of its dictionary, and what it takes besides.
const DICTIONARY_TIMES: u64 = 12;
const COMPRESSOR_BYTES: u64 = 8 << 20;
/// The search through a part of a gap: bytes of memory for each of its bytes, and its longest parts.
const SEARCH_TIMES: u64 = 64;
const SEARCH_BYTES: u64 = 1 << 18;
/// What making a patch takes besides.
const FIXED_BYTES: u64 = 4 << 20;

/// Larger sizes of a dictionary or a decoder are refused elsewhere.
const OPTION_BYTES_MAX: u64 = 1 << 32;

impl EncoderWork {
    /// Bytes of memory that the work takes at most. That is the image, its full payload, and for each patch that is
    /// made at the same time 5 for each byte of the base and 1 for each byte of the image.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        // The full payload is made of a copy that a filter has gone through.
        let image = if self.full { 2 * self.image } else { 2 * ESTIMATE_BYTES };
        let full = image + DICTIONARY_TIMES * self.dictionary.min(OPTION_BYTES_MAX) + COMPRESSOR_BYTES;
        self.image + full + self.patches_bytes()
    }

    /// Bytes of memory that the patches take at most, the bases included and the image not.
    #[must_use]
    pub fn patches_bytes(&self) -> u64 {
        if self.bases.is_empty() {
            return 0;
        }
        let mut bases = self.bases.clone();
        bases.sort_unstable_by(|one, other| other.cmp(one));
        let decoder = 4 * self.decoder.min(OPTION_BYTES_MAX);
        let patch = |base: &u64| {
            5 * base + self.image + SEARCH_TIMES * self.image.min(SEARCH_BYTES) + decoder + FIXED_BYTES
        };
        // Several divisions of memory may be tried at once for a patch: the jobs count for these too.
        let spare = (self.jobs as u64).min(4) * (decoder + SEARCH_TIMES * self.image.min(SEARCH_BYTES));
        spare + bases.iter().take(self.jobs.max(1)).map(patch).sum::<u64>()
    }

    /// Checks that patches can be made of these sizes, and that `limit` bytes of memory are enough.
    ///
    /// # Errors
    /// [`ReleaseError::TooLargeForPatch`], [`ReleaseError::EncoderMemory`].
    pub fn check(&self, limit: Option<u64>) -> Result<(), ReleaseError> {
        let sizes = self.bases.iter().map(|base| ("a base", *base));
        let image = ("the image", self.image);
        for (name, got) in sizes.chain((!self.bases.is_empty()).then_some(image)) {
            if got > ENCODER_IMAGE_BYTES_MAX {
                let (name, limit) = (name.into(), ENCODER_IMAGE_BYTES_MAX);
                return Err(ReleaseError::TooLargeForPatch { name, got, limit });
            }
        }
        let need = self.memory_bytes();
        let Some(limit) = limit.filter(|limit| *limit < need) else {
            return Ok(());
        };
        let one = Self { jobs: 1, ..self.clone() }.memory_bytes();
        let plain = Self { bases: Vec::new(), ..self.clone() }.memory_bytes();
        let mut would_do = format!("--memory-limit {need}");
        if one <= limit {
            would_do.push_str(" or --jobs 1");
        } else if one < need {
            would_do.push_str(&format!(", or --memory-limit {one} with --jobs 1"));
        }
        if plain <= limit && !self.bases.is_empty() {
            would_do.push_str(", or a release without patches");
        }
        Err(ReleaseError::EncoderMemory { need, limit, would_do })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn work() -> EncoderWork {
        let bases = vec![100 * MIB, 300 * MIB, 200 * MIB];
        EncoderWork { bases, image: 300 * MIB, jobs: 2, decoder: MIB / 4, dictionary: MIB, full: true }
    }

    #[test]
    fn the_largest_bases_count_for_as_many_patches_as_are_made_at_once() {
        let of = |jobs| EncoderWork { jobs, ..work() }.memory_bytes() / MIB;
        let (one, two, three, nine) = (of(1), of(2), of(3), of(9));
        // The image and its payload, then 5 times a base and once the image for each patch.
        assert!((900 + 1800..900 + 1890).contains(&one), "{one}");
        assert!((1300..1350).contains(&(two - one)), "{two}");
        assert!((800..850).contains(&(three - two)), "{three}");
        assert!(nine - three < 50, "{nine}");
        assert!(EncoderWork { bases: Vec::new(), ..work() }.memory_bytes() / MIB < 930);
        assert!(EncoderWork { full: false, ..work() }.memory_bytes() < work().memory_bytes() - 580 * MIB);
    }

    #[test]
    fn a_limit_that_is_too_low_is_refused_with_what_would_do() {
        let need = work().memory_bytes();
        let one = EncoderWork { jobs: 1, ..work() }.memory_bytes();
        let told = |limit| work().check(Some(limit)).unwrap_err().to_string();
        assert!(work().check(Some(need)).is_ok() && work().check(None).is_ok());
        assert!(
            told(need - 1)
                .ends_with(&format!("--memory-limit {need} or --jobs 1, or a release without patches"))
        );
        assert!(
            told(MIB).ends_with(&format!("--memory-limit {need}, or --memory-limit {one} with --jobs 1"))
        );
        assert!(EncoderWork { jobs: 1, ..work() }.check(Some(one)).is_ok());
    }

    #[test]
    fn an_image_that_is_too_large_for_patches_is_refused_at_once() {
        let large = 3 << 30;
        let refused =
            |work: EncoderWork| matches!(work.check(None), Err(ReleaseError::TooLargeForPatch { .. }));
        assert!(refused(EncoderWork { image: large, ..work() }));
        assert!(refused(EncoderWork { bases: vec![large], ..work() }));
        assert!(!refused(EncoderWork { bases: Vec::new(), image: large, ..work() }));
    }
}
