//! Cutting a payload into chunks, proving each one alone, and remembering which are held (SPEC section 6).

mod index;
mod layout;
mod set;

pub use index::{ChunkSalt, Index, Page, PageList};
pub use layout::{Layout, LayoutError};
pub use set::ChunkSet;
