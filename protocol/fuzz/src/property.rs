//! A patch of any bytes gives an image within the size in its header, or a named error, in bounded work; and saving
//! and restoring the decoder at any point changes nothing.

use whimbrel_protocol::patch::{Base, DecodeFailure, Decoder, Header, INPUT_MARGIN, PatchError};

/// Most decoder memory that is tried. A device refuses what is over its own limit before it makes a decoder.
const MEMORY_BYTES_MAX: u32 = 1024 * 1024;
/// Output after which a decoder that still goes on is let be: the header may promise exabytes.
const IMAGE_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of data before the patch: how it is cut, and where decoders are saved.
const SEED_BYTES: usize = 8;
/// The old image of the seeds; a header may say of another size, then it goes on from the start.
const OLD: &[u8] = include_bytes!("../../vectors/patch/small.old");
/// Bytes of the old image that decoding may read for each byte that comes in or goes out, and without any.
const READ_A_BYTE: usize = 256;
const READ_FREE: usize = 64 * 1024;

/// How a patch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The header is none, or asks for more memory than is tried.
    Refused,
    /// The image is complete and the patch at its end.
    Image,
    /// It went on for as long as is tried.
    Long,
    /// A named error.
    Error(PatchError),
}

/// Old images as long as headers say, whose readers may not ask for more.
struct Old {
    size: u64,
    read: usize,
}

impl Base for Old {
    type Error = core::convert::Infallible;

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        let end = at.checked_add(into.len() as u64).expect("reads end within 64 bits");
        assert!(end <= self.size, "read of {at}..{end} in an old image of {} bytes", self.size);
        self.read += into.len();
        for (byte, at) in into.iter_mut().zip(at..end) {
            let at = usize::try_from(at % OLD.len() as u64).expect("less than a length");
            *byte = OLD.get(at).copied().expect("less than the length");
        }
        Ok(())
    }
}

/// Numbers that the first bytes of the data decide.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % bound as u64).expect("less than the bound")
    }
}

/// Decodes `data`, of which the first 8 bytes decide how it is cut, in one go and in pieces.
///
/// # Panics
/// Where the property does not hold.
pub fn patch(data: &[u8]) -> End {
    let Some((seed, patch)) = data.split_first_chunk::<SEED_BYTES>() else { return End::Refused };
    let Ok((header, header_bytes)) = Header::decode(patch) else { return End::Refused };
    if header.memory_bytes() > MEMORY_BYTES_MAX {
        return End::Refused;
    }
    let input = patch.get(header_bytes..).expect("a header is within its bytes");
    let whole = decode(header, input, None);
    let mut choices = Choices(u64::from_le_bytes(*seed));
    let pieces = decode(header, input, Some(&mut choices));
    assert!(whole.0 == pieces.0, "in one go {:?}, in pieces {:?}", whole.0, pieces.0);
    let common = whole.1.len().min(pieces.1.len());
    assert!(whole.1.get(..common) == pieces.1.get(..common), "pieces give other bytes");
    if whole.0 == End::Image {
        assert_eq!(whole.1.len() as u64, header.image.size);
        assert_eq!(pieces.1.len() as u64, header.image.size);
    }
    whole.0
}

/// The end, and what came out until then.
fn decode(header: Header, input: &[u8], mut choices: Option<&mut Choices>) -> (End, Vec<u8>) {
    let mut decoder = Decoder::new(header);
    let mut old = Old { size: header.base.size, read: 0 };
    let (mut at, mut image) = (0, Vec::new());
    let mut room = vec![0; 4096];
    loop {
        if decoder.is_complete() {
            return (
                decoder.finish((input.len() - at) as u64).map_or_else(End::Error, |()| End::Image),
                image,
            );
        }
        if image.len() as u64 > IMAGE_BYTES_MAX {
            return (End::Long, image);
        }
        let (mut here, mut out) = (input.len() - at, room.len());
        if let Some(choices) = &mut choices {
            here = here.min(1 + choices.below(2 * INPUT_MARGIN));
            let most = if choices.below(4) == 0 { 8 } else { room.len() };
            out = 1 + choices.below(most);
            if choices.below(16) == 0 {
                decoder = saved_and_restored(&mut decoder, header, choices);
            }
        }
        let (mut used, mut filled) = (0, 0);
        while used == 0 && filled == 0 && !decoder.is_complete() {
            let last = at + here == input.len();
            let piece = input.get(at..at + here).expect("within the input");
            let read_before = old.read;
            (used, filled) =
                match decoder.decode(piece, last, &mut old, room.get_mut(..out).expect("within the room")) {
                    Ok(done) => done,
                    Err(DecodeFailure::Patch(error)) => return (End::Error(error), image),
                    Err(DecodeFailure::Base(never)) => match never {},
                };
            assert!(used <= here && filled <= out, "{used} of {here} bytes used, {filled} of {out} filled");
            let read = old.read - read_before;
            assert!(
                read <= READ_FREE + READ_A_BYTE * (here + out),
                "{read} bytes of the old image read in one step"
            );
            // Without progress it must be the input that was short.
            assert!(
                used > 0 || filled > 0 || !last || decoder.is_complete(),
                "no progress at the end of the input"
            );
            here = (here + INPUT_MARGIN).min(input.len() - at);
        }
        at += used;
        image.extend_from_slice(room.get(..filled).expect("within the room"));
        assert_eq!(decoder.consumed(), at as u64);
        assert_eq!(decoder.produced(), image.len() as u64);
        assert!(decoder.produced() <= header.image.size, "more output than the header says");
    }
}

/// The same decoder by way of its saved state; a damaged one does not panic.
fn saved_and_restored(decoder: &mut Decoder, header: Header, choices: &mut Choices) -> Decoder {
    let state = decoder.save();
    assert!(state.len() as u64 <= Decoder::state_bytes_max(&header), "{} bytes of state", state.len());
    let mut damaged = state.clone();
    // Positions and lengths come first, models make most of it.
    let reach = if choices.below(2) == 0 { damaged.len() } else { damaged.len().min(80) };
    let at = choices.below(reach.max(1));
    if let Some(byte) = damaged.get_mut(at) {
        *byte ^= 1 << choices.below(8);
    }
    if choices.below(4) == 0 {
        damaged.truncate(at);
    }
    // Whether a state is whole is the host's to check: one that is not may be refused or taken, no more.
    drop(Decoder::restore(header, &damaged));
    let restored = Decoder::restore(header, &state).expect("its own state is taken back");
    assert_eq!((restored.consumed(), restored.produced()), (decoder.consumed(), decoder.produced()));
    restored
}
