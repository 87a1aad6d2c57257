//! Makes patches (SPEC section 5.5): finds the parts of the new image that are in the old one, and codes the
//! rest.

mod elf;
mod ext4;
mod flat;
mod literals;
mod memory;
mod parse;
mod plan;
mod range;
mod regions;
mod scan;
mod suffix;

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::ImageId;
use whimbrel_protocol::patch::{Architecture, Engine, Entry, Header, Region, Tuning};

use crate::release::Progress;
use literals::LiteralRun;
use plan::Plan;
use range::RangeEncoder;
use suffix::Suffixes;

pub use memory::MEMORY_BYTES_MIN;

/// How to make a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchOptions {
    /// Most bytes of memory that the device's decoder may need.
    pub memory_bytes: u32,
    /// Architecture of the code in the images. If it is `None`, it is found out.
    pub architecture: Option<Architecture>,
    /// The address that the first byte of a flat image has when it runs. If it is `None`, it is found out.
    pub load_address: Option<u64>,
    /// Threads.
    pub jobs: usize,
}

impl Default for PatchOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 * 1024, architecture: None, load_address: None, jobs: 1 }
    }
}

/// A patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The header, decoded.
    pub header: Header,
    /// The patch, header included.
    pub bytes: Vec<u8>,
    /// For each mode, the number of bytes of the image that were predicted in it.
    pub modes: Vec<(&'static str, u64)>,
    /// The architecture that most of the image's code was taken for.
    pub architecture: Architecture,
    /// The address at which a flat image was taken to run; `None` if the image itself says it, or has no
    /// code.
    pub load_address: Option<u64>,
}

/// Makes the patch from `old` to `new`; both have at least 1 byte. The same arguments give the same bytes, whatever the
/// number of threads, but only on one kind of machine, because the search uses floating point.
///
/// `progress` counts every byte of `new` twice: when it has been looked for, and when it is coded. The most memory that
/// this takes is in [`EncoderWork::memory_bytes`](crate::release::EncoderWork::memory_bytes).
///
/// # Panics
/// If `options.memory_bytes` is less than [`MEMORY_BYTES_MIN`], or an image is larger than patches may be.
#[must_use]
pub fn diff(old: &[u8], new: &[u8], options: &PatchOptions, progress: Progress<'_>) -> Patch {
    let suffixes = Suffixes::of(old);
    let found = scan::scan(old, new, &suffixes, progress);
    let known = regions::Known { architecture: options.architecture, load_address: options.load_address };
    let id = |bytes: &[u8]| ImageId { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let header = Header { base: id(old), image: id(new), tuning: memory::SMALLEST };
    let most = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let mut divisions = memory::divisions(&header, options.memory_bytes, most);
    let first = *divisions.first().expect("the smallest division fits the least memory");
    let regions = choose_regions(old, new, regions::candidates(old, new, &found, known), |regions| {
        Attempt::new(&header, first, regions, &found)
    });
    divisions.truncate(if new.len() > SMALL_IMAGE_BYTES { 1 } else { DIVISIONS_TRIED });
    let attempts: Vec<Attempt> =
        divisions.into_iter().map(|tuning| Attempt::new(&header, tuning, regions.clone(), &found)).collect();
    let patches = run(&attempts, options.jobs, new.len() as u64, progress, |attempt, told| {
        attempt.patch(old, new, &suffixes, told)
    });
    // If several are equally small, the first one is taken.
    patches.into_iter().min_by_key(|patch| patch.bytes.len()).expect("at least one was tried")
}

/// Number of divisions of memory that are tried on a small image.
const DIVISIONS_TRIED: usize = 3;
/// An image larger than this is coded only once.
const SMALL_IMAGE_BYTES: usize = 1 << 20;

/// The division into regions that takes the fewest bytes if operations are not searched for.
fn choose_regions(
    old: &[u8],
    new: &[u8],
    mut candidates: Vec<Vec<Region>>,
    attempt: impl Fn(Vec<Region>) -> Attempt,
) -> Vec<Region> {
    let mut best = 0;
    if candidates.len() > 1 {
        let cost = |regions: &Vec<Region>| attempt(regions.clone()).literals(old, new).total();
        let costs = candidates.iter().map(cost).enumerate();
        best = costs.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(at, _)| at);
    }
    candidates.swap_remove(best)
}

/// Runs every attempt on up to `jobs` threads; `progress` counts `len` bytes in all.
fn run(
    attempts: &[Attempt],
    jobs: usize,
    len: u64,
    progress: Progress<'_>,
    work: impl Fn(&Attempt, &mut dyn FnMut(u64)) -> Patch + Sync,
) -> Vec<Patch> {
    let next = AtomicUsize::new(0);
    let patches = Mutex::new(attempts.iter().map(|_| None).collect::<Vec<_>>());
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, attempts.len()) {
            let (sender, next, patches, work) = (sender.clone(), &next, &patches, &work);
            scope.spawn(move || {
                while let Some((at, attempt)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    attempts.get(at).map(|attempt| (at, attempt))
                } {
                    // Sending fails only if the receiver has panicked.
                    let patch = work(attempt, &mut |bytes| sender.send(bytes).unwrap_or_default());
                    if let Some(place) = patches.lock().expect("no holder panics").get_mut(at) {
                        *place = Some(patch);
                    }
                }
            });
        }
        drop(sender);
        let (all, mut done, mut told) = (attempts.len() as u64, 0, 0);
        for bytes in receiver {
            done += bytes;
            let share = (done / all).min(len);
            progress(share - told);
            told = share;
        }
    });
    patches.into_inner().expect("no holder panicked").into_iter().flatten().collect()
}

/// A division of memory and of the image, to be tried.
struct Attempt {
    header: Header,
    regions: Vec<Region>,
    entries: Vec<Entry>,
    /// Pieces that were found and have no entry in the map.
    pieces: Vec<Entry>,
}

impl Attempt {
    fn new(header: &Header, tuning: Tuning, mut regions: Vec<Region>, found: &[Entry]) -> Self {
        let (entries, pieces) = memory::prune(found, tuning.map_entries);
        let entries = regions::assign(&mut regions, &entries);
        let map_entries = regions.iter().map(|region| region.entries).max().unwrap_or(0);
        let header = Header { tuning: Tuning { map_entries, ..tuning }, ..*header };
        Self { header, regions, entries, pieces }
    }

    /// A run in which every byte between entries is coded as a literal.
    fn literals<'i>(&self, old: &'i [u8], new: &'i [u8]) -> LiteralRun<'i> {
        LiteralRun::new(&self.header, old, new, self.regions.clone(), self.entries.clone())
    }

    fn patch(&self, old: &[u8], new: &[u8], suffixes: &Suffixes<'_>, progress: Progress<'_>) -> Patch {
        let mut end = 0;
        let ends: Vec<usize> = self
            .regions
            .iter()
            .map(|region| {
                end += region.len as usize;
                end
            })
            .collect();
        let dictionary = 1 << self.header.tuning.dictionary_log2;
        let images = parse::Images { old, new, suffixes, dictionary, ends: &ends };
        let mut literals = self.literals(old, new);
        let ops = parse::parse(&images, &self.entries, &self.pieces, &mut |range, into| {
            literals.bits(&range, into);
        });
        drop(literals);
        let plan = Plan::new(new, self.regions.clone(), self.entries.clone(), ops);
        let patch = encode(old, &self.header, plan, progress);
        Patch { architecture: self.architecture(), load_address: self.load_address(), ..patch }
    }

    fn code(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(|region| region.architecture != Architecture::None)
    }

    fn architecture(&self) -> Architecture {
        self.code().max_by_key(|region| region.len).map_or(Architecture::None, |region| region.architecture)
    }

    fn load_address(&self) -> Option<u64> {
        let flat =
            |region: &&Region| self.regions.len() == 1 && region.new.len() == 1 && region.old.len() == 1;
        self.code().find(flat)?.new.first().map(|segment| segment.address)
    }
}

/// Progress is told after so many bytes.
const TELL_BYTES: u32 = 1 << 16;

fn encode(old: &[u8], header: &Header, mut plan: Plan<'_>, progress: Progress<'_>) -> Patch {
    let head = header.encode();
    let head_len = head.len();
    let mut coder = RangeEncoder::new(head);
    let mut engine = Engine::new(header);
    let mut told = 0;
    while !engine.is_complete() {
        engine.step(&mut coder, &mut plan, &mut &*old).expect("the plan keeps to the images");
        let produced = engine.produced();
        if produced - told >= TELL_BYTES || engine.is_complete() {
            progress((produced - told).into());
            told = produced;
        }
    }
    Patch {
        header: *header,
        bytes: coder.finish(head_len),
        modes: plan.modes(),
        architecture: Architecture::None,
        load_address: None,
    }
}
