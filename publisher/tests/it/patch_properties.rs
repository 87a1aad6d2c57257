//! Decoding a patch gives the image that was encoded, for any images and any sizes of input pieces.

use proptest::prelude::*;
use whimbrel_protocol::patch::{Architecture, Decoder, Header, INPUT_MARGIN};
use whimbrel_publisher::patch::{MEMORY_BYTES_MIN, Patch, PatchOptions, diff};

const LOAD_ADDRESS: u64 = 0x0800_0000;

/// Code-like bytes: references of every kind that the architecture has, among filling.
pub(crate) fn code(architecture: Architecture, seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let (pick, any) = (random.below(8), random.below(u32::MAX));
        let register = any >> 27;
        let near = any & 0x1ff;
        match architecture {
            Architecture::Arm64 => {
                let word = match pick {
                    0 => 0x9400_0000 | near,                                    // BL
                    1 => 0x9000_0000 | register | (near & 3) << 29 | near << 5, // ADRP
                    2 => 0x9100_0000 | register << 5 | register | near << 10,   // ADD
                    3 => 0xf940_0000 | register << 5 | near << 10,              // LDR
                    4 => 0x5400_0000 | near << 5,                               // B.cond
                    5 => 0x5280_0000 | register | (any & 0xffff) << 5,          // MOVZ
                    6 => 0x3600_0000 | near << 5,                               // TBZ
                    _ => 0xaa00_03e0 | register,
                };
                bytes.extend(word.to_le_bytes());
            }
            Architecture::Arm => {
                let word = match pick {
                    0 => 0xeb00_0000 | near,
                    1 => 0xe59f_0000 | near << 2 & 0xfff,
                    2 => 0xe300_0000 | (register & 15) << 12 | near,
                    3 => 0xe340_0800 | (register & 15) << 12,
                    4 => pointer(any),
                    _ => 0xe1a0_0000 | any & 0xff,
                };
                bytes.extend(word.to_le_bytes());
            }
            Architecture::Thumb => match pick {
                0 => {
                    bytes.extend(0xf000_u16.to_le_bytes());
                    bytes.extend((0xf800 | near as u16).to_le_bytes());
                }
                1 => bytes.extend((0x4800 | (any & 0x7ff) as u16).to_le_bytes()),
                2 => bytes.extend((0xd000 | (any & 0xff) as u16).to_le_bytes()),
                3 => bytes.extend((0xb100 | (any & 0xff) as u16).to_le_bytes()),
                4 => {
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                    bytes.extend(pointer(any).to_le_bytes());
                }
                _ => bytes.extend((0x2000 | (any & 0x1fff) as u16).to_le_bytes()),
            },
            Architecture::RiscV => match pick {
                0 => bytes.extend((0x0000_00ef | near << 21).to_le_bytes()), // JAL
                1 => {
                    bytes.extend((0x0000_0517 | near << 12).to_le_bytes()); // AUIPC a0
                    bytes.extend((0x0005_0513 | near << 20).to_le_bytes()); // ADDI a0, a0
                }
                2 => bytes.extend((0x0000_0063 | (any & 0xf) << 8).to_le_bytes()), // BEQ
                3 => bytes.extend((0xa001 | (any & 0x1ffc) as u16).to_le_bytes()), // C.J
                4 => bytes.extend((0xc001 | (any & 0x1ffc) as u16).to_le_bytes()), // C.BEQZ
                _ => bytes.extend((0x4501 | (any & 0x7c) as u16).to_le_bytes()),
            },
            Architecture::X86 => match pick {
                0 => bytes.extend([&[0xe8], &near.to_le_bytes()[..]].concat()),
                1 => bytes.extend([&[0x0f, 0x84], &near.to_le_bytes()[..]].concat()),
                2 => bytes.extend([&[0x48, 0x8d, 0x05], &near.to_le_bytes()[..]].concat()),
                _ => bytes.extend(any.to_le_bytes()),
            },
            Architecture::None => bytes.push(any as u8 & 0x3f),
        }
    }
    bytes.truncate(len);
    bytes
}

fn pointer(any: u32) -> u32 {
    LOAD_ADDRESS as u32 + (any & 0x1ffc)
}

/// A linear congruential generator. The same seed always gives the same numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32 % bound.max(1)
    }
}

/// A change of an image, to make the next version.
#[derive(Clone, Debug)]
enum Edit {
    Overwrite(usize, Vec<u8>),
    Insert(usize, Vec<u8>),
    InsertCode(usize, u64, usize),
    Delete(usize, usize),
    Duplicate(usize, usize, usize),
    Move(usize, usize, usize),
}

fn apply(mut image: Vec<u8>, edits: &[Edit], architecture: Architecture) -> Vec<u8> {
    for edit in edits {
        let len = image.len();
        let range = |at: usize, count: usize| at % len..(at % len + count).min(len);
        match edit {
            Edit::Overwrite(at, bytes) => {
                image.iter_mut().skip(at % len).zip(bytes).for_each(|(place, byte)| *place = *byte);
            }
            Edit::Insert(at, bytes) => drop(image.splice(at % len..at % len, bytes.iter().copied())),
            Edit::InsertCode(at, seed, count) => {
                let at = (at % len) & !3;
                image.splice(at..at, code(architecture, *seed, *count & !3));
            }
            Edit::Delete(at, count) => drop(image.drain(range(*at, *count))),
            Edit::Duplicate(at, count, to) => {
                let piece = image[range(*at, *count)].to_vec();
                image.splice(to % len..to % len, piece);
            }
            Edit::Move(at, count, to) => {
                let piece: Vec<u8> = image.drain(range(*at, *count)).collect();
                let to = to % (image.len() + 1);
                image.splice(to..to, piece);
            }
        }
        if image.is_empty() {
            image.push(1);
        }
    }
    image
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let (at, count) = (any::<u16>().prop_map(usize::from), 1_usize..700);
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    prop::collection::vec(
        prop_oneof![
            (at.clone(), bytes()).prop_map(|(at, bytes)| Edit::Overwrite(at, bytes)),
            (at.clone(), bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            (at.clone(), any::<u64>(), count.clone()).prop_map(|(at, seed, n)| Edit::InsertCode(at, seed, n)),
            (at.clone(), count.clone()).prop_map(|(at, n)| Edit::Delete(at, n)),
            (at.clone(), count.clone(), at.clone()).prop_map(|(at, n, to)| Edit::Duplicate(at, n, to)),
            (at.clone(), count, at).prop_map(|(at, n, to)| Edit::Move(at, n, to)),
        ],
        0..12,
    )
}

#[derive(Clone, Debug)]
struct Case {
    old: Vec<u8>,
    new: Vec<u8>,
    options: PatchOptions,
}

impl Case {
    fn patch(&self) -> Patch {
        diff(&self.old, &self.new, &self.options, &mut |_| {})
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let architectures = prop::sample::select(Architecture::ALL.to_vec());
    let memory = prop_oneof![Just(MEMORY_BYTES_MIN), Just(40 * 1024), Just(256 * 1024), 24_576_u32..400_000];
    let load_address = prop_oneof![Just(LOAD_ADDRESS), Just(0), Just(u64::MAX - 0xfff), Just(0xffff_f000)];
    let given = (any::<bool>(), any::<bool>(), load_address);
    (architectures, any::<u64>(), 1_usize..9000, edits(), memory, given).prop_map(
        |(architecture, seed, len, edits, memory_bytes, (arch_given, address_given, load_address))| {
            let old = code(architecture, seed, len);
            let new = apply(old.clone(), &edits, architecture);
            let options = PatchOptions {
                memory_bytes,
                architecture: arch_given.then_some(architecture),
                load_address: address_given.then_some(load_address),
                jobs: 1,
            };
            Case { old, new, options }
        },
    )
}

/// Decodes with pieces of these sizes, in turn; `saves` says in which of the calls the decoder is saved and restored.
fn decode(patch: &[u8], mut old: &[u8], pieces: &[(usize, usize)], saves: &[bool]) -> Vec<u8> {
    let (header, header_bytes) = Header::decode(patch).unwrap();
    let input = &patch[header_bytes..];
    let mut decoder = Decoder::new(header);
    let (mut at, mut end, mut image) = (0, 0, Vec::new());
    for call in 0.. {
        if decoder.is_complete() {
            break;
        }
        if saves[call % saves.len()] {
            let state = decoder.save();
            assert!(state.len() as u64 <= Decoder::state_bytes_max(&header));
            decoder = Decoder::restore(header, &state).unwrap();
        }
        let (more, room) = pieces[call % pieces.len()];
        let mut out = vec![0; room];
        // Like a host that has its buffer filled as far as it goes.
        end = (end + more).min(at + INPUT_MARGIN + more).min(input.len());
        let (used, filled) = decoder.decode(&input[at..end], end == input.len(), &mut old, &mut out).unwrap();
        at += used;
        image.extend_from_slice(&out[..filled]);
        assert_eq!((decoder.consumed(), decoder.produced()), (at as u64, image.len() as u64));
    }
    decoder.finish((input.len() - at) as u64).unwrap();
    image
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_decoded_patch_is_the_new_image_and_takes_no_more_memory_than_allowed(case in cases()) {
        let patch = case.patch();
        prop_assert!(patch.header.memory_bytes() <= case.options.memory_bytes);
        prop_assert!(decode(&patch.bytes, &case.old, &[(usize::MAX >> 1, case.new.len())], &[false]) == case.new);
    }

    #[test]
    fn pieces_of_any_size_and_saved_states_give_the_same_image(
        case in cases(),
        pieces in prop::collection::vec((1_usize..3000, 1_usize..700), 1..6),
        saves in prop::collection::vec(prop::bool::weighted(0.3), 1..9),
    ) {
        let patch = case.patch();
        prop_assert!(decode(&patch.bytes, &case.old, &pieces, &saves) == case.new);
    }

    #[test]
    fn the_same_images_give_the_same_patch_for_any_number_of_threads(case in cases()) {
        let patch = case.patch();
        prop_assert!(case.patch() == patch);
        let threads = Case { options: PatchOptions { jobs: 2, ..case.options.clone() }, ..case };
        prop_assert!(threads.patch() == patch);
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same_image() {
    for architecture in Architecture::ALL {
        let old = code(architecture, 5, 4000);
        let edits = [
            Edit::InsertCode(1200, 9, 300),
            Edit::Overwrite(3000, vec![1, 2, 3]),
            Edit::Move(100, 200, 3500),
        ];
        let new = apply(old.clone(), &edits, architecture);
        let options = PatchOptions { memory_bytes: MEMORY_BYTES_MIN, ..PatchOptions::default() };
        let patch = Case { old: old.clone(), new: new.clone(), options }.patch();
        assert!(decode(&patch.bytes, &old, &[(1, 1)], &[false]) == new, "{}", architecture.name());
    }
}
