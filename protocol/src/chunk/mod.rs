//! Cuts a payload into chunks, proves each of them alone, and remembers which are held (SPEC section 6).

mod index;
mod layout;
mod set;

pub use index::{ChunkSalt, Index, Page, PageList};
pub use layout::{Layout, LayoutError};
pub use set::ChunkSet;
