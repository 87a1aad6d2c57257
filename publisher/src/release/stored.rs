//! Images that exist already: as a file, or as the payload of a release folder, which has to be decoded.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use whimbrel_protocol::ids::Digest;
use whimbrel_protocol::manifest::{Codec, ImageId, Payload};

use super::sink::Hashing;
use super::verify::unpack;
use super::{IMAGE_BYTES_MAX, ReleaseError, ReleaseFolder, images_of};
use crate::files::{self, FileError};

/// An image that exists already. Its bytes stay on the disk until they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    name: String,
    id: ImageId,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Payload(PathBuf, Payload),
}

impl StoredImage {
    /// Finds out which image the file `path` is, or the release in the folder `path` installs.
    ///
    /// # Errors
    /// [`ReleaseError::File`], [`ReleaseError::ImageSize`]; of a folder also those of [`ReleaseFolder::open`] and
    /// [`ReleaseFolder::manifest`], and [`ReleaseError::SeveralImages`].
    pub fn open(path: &Path) -> Result<Self, ReleaseError> {
        let name = path.display().to_string();
        if path.is_dir() {
            let (id, source) = in_folder(path)?;
            return Ok(Self { name, id, source });
        }
        let refused = |source| FileError::io("read", path, source);
        let mut file = File::open(path).map_err(refused)?;
        let mut hash = Hashing::new(io::sink());
        let size = io::copy(&mut file, &mut hash).map_err(refused)?;
        let id = ImageId { digest: hash.digest(), size };
        if size == 0 || size > IMAGE_BYTES_MAX {
            return Err(ReleaseError::StoredSize { path: path.into(), got: size, limit: IMAGE_BYTES_MAX });
        }
        Ok(Self { name, id, source: Source::File(path.into()) })
    }

    /// Its name for people: the path that was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its digest and size.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`ReleaseError`] if it cannot be read any more, or if decoding the payload does not give it.
    pub fn read(&self) -> Result<Vec<u8>, ReleaseError> {
        let bytes = match &self.source {
            Source::File(path) => files::read(path, "an image", IMAGE_BYTES_MAX)?,
            Source::Payload(path, payload) => {
                let mut bytes = Vec::new();
                unpack(path, self.id, payload, &mut bytes)?;
                bytes
            }
        };
        let got = Digest::of(&bytes);
        if got == self.id.digest { Ok(bytes) } else { Err(ReleaseError::Changed { name: self.name.clone() }) }
    }

    /// A file with its bytes, to be read in any order.
    ///
    /// # Errors
    /// As [`StoredImage::read`]; also if a payload's image finds no room in the folder for temporary files.
    pub fn file(&self) -> Result<File, ReleaseError> {
        match &self.source {
            Source::File(path) => Ok(File::open(path).map_err(|source| FileError::io("read", path, source))?),
            Source::Payload(path, payload) => {
                let mut file = tempfile::tempfile()
                    .map_err(|source| FileError::io("write", &std::env::temp_dir(), source))?;
                unpack(path, self.id, payload, &mut file)?;
                file.seek(SeekFrom::Start(0)).map_err(|source| FileError::io("read", path, source))?;
                Ok(file)
            }
        }
    }
}

fn in_folder(path: &Path) -> Result<(ImageId, Source), ReleaseError> {
    let release = ReleaseFolder::open(path)?;
    let manifest = release.manifest()?;
    let mut whole =
        images_of(&manifest).into_iter().filter(|(_, payload)| payload.transfer.codec != Codec::Patch);
    match (whole.next(), whole.next()) {
        (Some((image, payload)), None) => {
            let file = release.payload_path(&payload.transfer.index_digest);
            Ok((image, Source::Payload(file, payload)))
        }
        _ => Err(ReleaseError::SeveralImages { folder: path.into() }),
    }
}
