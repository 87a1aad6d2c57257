//! Every maximum in one place.
//!
//! Everything that arrives from outside is checked against these before anything acts on it, stores it, or allocates
//! memory for it. Each line names the section of SPEC.md that fixes it.

/// Deepest nesting of any CBOR item that is walked without a schema.
pub const CBOR_DEPTH_MAX: usize = 8; // SPEC 3.1

// Names (SPEC 2.1)

/// Fewest characters of a device id.
pub const DEVICE_ID_MIN: usize = 2;
/// Most characters of a device id.
pub const DEVICE_ID_MAX: usize = 64;
/// Most characters of a group name.
pub const GROUP_NAME_MAX: usize = 32;
/// Most characters of the topic prefix.
pub const PREFIX_MAX: usize = 16;

// Keys and signed objects (SPEC 4)

/// Most bytes of any COSE object of ours but `root.cbor`.
pub const SIGNED_BYTES_MAX: usize = 4096;
/// Most bytes of `root.cbor`.
pub const ROOT_BYTES_MAX: usize = 4096;
/// Most bytes of a protected header.
pub const PROTECTED_BYTES_MAX: usize = 32;
/// Most bytes of a key id.
pub const KEY_ID_BYTES_MAX: usize = 32;
/// Most signatures on one object.
pub const SIGNATURES_MAX: usize = 4;
/// Most keys that a root names, over all roles.
pub const ROOT_KEYS_MAX: usize = 16;
/// Most keys of one role.
pub const ROLE_KEYS_MAX: usize = 8;

// Releases (SPEC 5)

/// Most bytes of a SUIT envelope.
pub const ENVELOPE_BYTES_MAX: usize = 4096;
/// Most authentication blocks of an envelope.
pub const AUTH_BLOCKS_MAX: usize = 4;
/// Most payloads inside an envelope.
pub const INTEGRATED_PAYLOADS_MAX: usize = 4;
/// Most components of a manifest.
pub const COMPONENTS_MAX: usize = 8;
/// Most parts of a component id.
pub const COMPONENT_ID_PARTS_MAX: usize = 4;
/// Most bytes of one part of a component id.
pub const COMPONENT_ID_PART_BYTES_MAX: usize = 32;
/// Most commands of one section, with everything nested in it.
pub const SECTION_COMMANDS_MAX: usize = 64;
/// Deepest nesting of command sequences (try-each, run-sequence).
pub const SEQUENCE_DEPTH_MAX: usize = 3;
/// Most parameters that one command sets.
pub const PARAMETERS_MAX: usize = 16;
/// Most languages of a manifest's text.
pub const TEXT_LANGUAGES_MAX: usize = 8;
/// Most characters of a language tag.
pub const LANGUAGE_TAG_MAX: usize = 35;
/// Most bytes of memory that a payload's decoder may ask for.
pub const DECODER_MEMORY_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Most bytes of a decoder's dictionary.
pub const DICTIONARY_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// Most patches that a release of ours offers beside the full payload.
pub const PATCHES_MAX: usize = 8;
/// Most bytes of an image that a patch starts from or makes: positions in it have 32 bits.
pub const PATCH_IMAGE_BYTES_MAX: u64 = u32::MAX as u64 - 0xffff; // SPEC 5.5
/// log2 of the bytes of a patch's dictionary.
pub const PATCH_DICTIONARY_LOG2: core::ops::RangeInclusive<u8> = 8..=22; // SPEC 5.5
/// log2 of the models of each kind of a patch's decoder.
pub const PATCH_MODELS_LOG2: core::ops::RangeInclusive<u8> = 8..=20; // SPEC 5.5
/// Most bytes of a URI in a manifest.
pub const URI_BYTES_MAX: usize = 256;
/// Most integers of a version.
pub const VERSION_PARTS_MAX: usize = 6;

// Chunks (SPEC 6)

/// Smallest log2 of the chunk size: 1 KiB.
pub const CHUNK_SIZE_LOG2_MIN: u8 = 10;
/// Largest log2 of the chunk size: 64 KiB. Few brokers and modems take so much in one message.
pub const CHUNK_SIZE_LOG2_MAX: u8 = 16;
/// Most chunks of a payload.
pub const CHUNKS_MAX: u32 = 65_535;
/// Bytes of a chunk digest.
pub const CHUNK_DIGEST_BYTES: usize = 8;
/// Chunk digests of one index page.
pub const PAGE_CHUNKS: u32 = 512;
/// Most bytes of an index page.
pub const PAGE_BYTES_MAX: usize = PAGE_CHUNKS as usize * CHUNK_DIGEST_BYTES;
/// Bytes of a page digest.
pub const PAGE_DIGEST_BYTES: usize = 16;
/// Most pages of an index.
pub const PAGES_MAX: u32 = CHUNKS_MAX.div_ceil(PAGE_CHUNKS);
/// Most bytes of the list of page digests.
pub const PAGE_LIST_BYTES_MAX: usize = PAGES_MAX as usize * PAGE_DIGEST_BYTES;
/// Chunks that the journal can tell apart beyond its watermark; later ones are not asked for.
pub const JOURNAL_CHUNKS: u32 = 3_400;

// Messages (SPEC 7)

/// Most bytes of an unsigned message other than a chunk or page message.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Most bytes of a chunk request (SPEC 7.3).
pub const REQUEST_BYTES_MAX: usize = 32;
/// Most bytes of the bitmap of a chunk request.
pub const REQUEST_BITMAP_BYTES_MAX: usize = 16;
/// Most chunks that one request may grant.
pub const REQUEST_CHUNKS_MAX: u32 = 128;
/// Most bytes of the header of a chunk message.
pub const CHUNK_HEADER_BYTES_MAX: usize = 6;
/// Most payload bytes that one PUBLISH of ours carries.
pub const CHUNK_MESSAGE_BYTES_MAX: usize = 64 * 1024 + CHUNK_HEADER_BYTES_MAX;
/// Most groups of one device.
pub const GROUPS_MAX: usize = 8;
/// Most pairs of group and version in a beacon.
pub const BEACON_GROUPS_MAX: usize = 256;

// The device's session (SPEC 8)

/// Smallest window, in bytes.
pub const WINDOW_BYTES_MIN: u64 = 8 * 1024;
/// Largest window, in bytes.
pub const WINDOW_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that a device takes in one connection without having asked for them before it hangs up.
pub const UNSOLICITED_BYTES_MAX: u64 = 128 * 1024;
/// Documents that are no news and come in one connection before the bytes of more of them count as not asked for: as
/// many as a device has retained topics, and a few more.
pub const REPLAYS_MAX: u8 = 16;
/// Longest wait that a refusal can ask for, in seconds.
pub const RETRY_AFTER_MAX_S: u32 = 3600;
/// Smallest flush group, in bytes.
pub const FLUSH_BYTES_MIN: u64 = 16 * 1024;
/// Largest flush group, in bytes.
pub const FLUSH_BYTES_MAX: u64 = 1024 * 1024;
/// Most bytes of what a health check or hook said last, in a report.
pub const SAID_BYTES_MAX: usize = 200; // SPEC 4.8
/// Reports that a device keeps until they are acknowledged; the oldest makes room.
pub const REPORTS_MAX: usize = 4;
/// Outcomes of (campaign, attempt) that a device remembers.
pub const OUTCOMES_MAX: usize = 16;
/// Scopes whose highest version a device remembers.
pub const SCOPES_MAX: usize = 24;
/// Most bytes of the device's durable record.
pub const RECORD_BYTES_MAX: usize = 32 * 1024;

// The service's session (SPEC 9)

/// How many times its size a payload is served to one device in a day.
pub const SERVED_TIMES_PER_DAY_MAX: u64 = 3;

const _: () = assert!(PAGES_MAX == 128);
const _: () = assert!(PAGE_LIST_BYTES_MAX == 2048);
const _: () = assert!(REQUEST_CHUNKS_MAX as usize == REQUEST_BITMAP_BYTES_MAX * 8);
const _: () = assert!((1 << CHUNK_SIZE_LOG2_MAX) <= WINDOW_BYTES_MAX);
const _: () = assert!(WINDOW_BYTES_MAX >> CHUNK_SIZE_LOG2_MIN <= REQUEST_CHUNKS_MAX as u64);
const _: () = assert!(JOURNAL_CHUNKS as u64 >= WINDOW_BYTES_MAX >> CHUNK_SIZE_LOG2_MIN);
const _: () = assert!(
    RECORD_BYTES_MAX
        >= ROOT_BYTES_MAX
            + (GROUPS_MAX + 1) * 1024
            + REPORTS_MAX * 1024
            + OUTCOMES_MAX * 32
            + PATCHES_MAX * 32
            + SCOPES_MAX * 48
);
