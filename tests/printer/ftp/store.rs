//! The files of the simulated printer: in memory, and large ones as no more than how to make them.
//!
//! A file is kept as its length and its SHA-256, and whole up to [`MAX_WHOLE`]. One that follows the
//! [pattern](Pattern) is kept as the pattern's seed, so that it can be read back at any size.

use std::io;
use std::rc::Rc;

use ring::digest::{Context, SHA256, digest};

/// Files at most. Past it: 553.
pub const MAX_FILES: usize = 64;

/// Directories at most.
pub const MAX_FOLDERS: usize = 32;

/// A file up to this many bytes is kept whole. All files together: 512 MiB.
pub const MAX_WHOLE: usize = 8 * 1024 * 1024;

/// What a file's name may be long, with its path, in bytes.
pub(super) const MAX_PATH: usize = 1024;

/// Bytes that can be made anywhere in a file of any size, and recognised.
///
/// The file is blocks of 64 KiB. Each begins with the seed and its own number, 8 bytes each, and goes
/// on as every other block of this seed.
#[derive(Clone)]
pub struct Pattern {
    seed: u64,
    block: Rc<[u8]>,
}

const BLOCK: usize = 64 * 1024;

impl Pattern {
    /// The file of this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut block = Vec::with_capacity(BLOCK);
        while block.len() < BLOCK {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            block.extend((word ^ (word >> 31)).to_le_bytes());
        }
        Self { seed, block: block.into() }
    }

    /// The bytes from `offset` on.
    pub fn fill(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let number = offset / BLOCK as u64;
            let within = usize::try_from(offset % BLOCK as u64).unwrap();
            let len = out.len().min(BLOCK - within);
            let (piece, rest) = out.split_at_mut(len);
            piece.copy_from_slice(&self.block[within..within + len]);
            for (at, byte) in self.head(number).into_iter().enumerate() {
                if (within..within + len).contains(&at) {
                    piece[at - within] = byte;
                }
            }
            offset += len as u64;
            out = rest;
        }
    }

    /// The first `len` bytes.
    pub fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(0, &mut bytes);
        bytes
    }

    /// SHA-256 of the first `len` bytes.
    pub fn hash(&self, len: u64) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        let mut piece = vec![0; BLOCK];
        let mut done = 0;
        while done < len {
            let next = usize::try_from((len - done).min(BLOCK as u64)).unwrap();
            self.fill(done, &mut piece[..next]);
            context.update(&piece[..next]);
            done += next as u64;
        }
        context.finish().as_ref().try_into().unwrap()
    }

    fn head(&self, number: u64) -> [u8; 16] {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&self.seed.to_le_bytes());
        head[8..].copy_from_slice(&number.to_le_bytes());
        head
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// What the printer has of a file.
#[derive(Clone)]
pub struct Stored {
    /// Bytes.
    pub len: u64,
    /// SHA-256. Zeros while hashing is [off](super::FileServer::hashing).
    pub hash: [u8; 32],
    /// All of it, up to [`MAX_WHOLE`]; nothing of one that is kept as a pattern only.
    pub content: Option<Rc<[u8]>>,
    pub(super) pattern: Option<Pattern>,
}

impl Stored {
    /// Puts what stands at `offset` into `out`. How much: less than asked at the end, nothing past it.
    ///
    /// # Errors
    ///
    /// The file was too large to be kept and follows no pattern.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(out.len());
        let out = &mut out[..len];
        if let Some(content) = &self.content {
            let from = usize::try_from(offset).unwrap().min(content.len());
            out.copy_from_slice(&content[from..from + len]);
        } else if let Some(pattern) = &self.pattern {
            pattern.fill(offset, out);
        } else if len > 0 {
            return Err(io::Error::other("the simulated printer did not keep it"));
        }
        Ok(len)
    }

    fn is_kept(&self) -> bool {
        self.len == 0 || self.content.is_some() || self.pattern.is_some()
    }
}

/// A file on its way in.
pub(super) struct Incoming {
    len: u64,
    context: Option<Context>,
    content: Option<Vec<u8>>,
    pattern: Option<Pattern>,
    expected: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(hashing: bool) -> Self {
        Self {
            len: 0,
            context: hashing.then(|| Context::new(&SHA256)),
            content: Some(Vec::new()),
            pattern: None,
            expected: Vec::new(),
        }
    }

    /// One that begins with the first `len` bytes of another.
    pub(super) fn after(stored: &Stored, len: u64, hashing: bool) -> io::Result<Self> {
        if !stored.is_kept() || len > stored.len {
            return Err(io::Error::other("nothing to go on from"));
        }
        let mut incoming = Self::new(hashing);
        let mut piece = vec![0; BLOCK];
        while incoming.len < len {
            let want = usize::try_from((len - incoming.len).min(BLOCK as u64)).unwrap();
            let read = stored.read(incoming.len, &mut piece[..want])?;
            incoming.push(&piece[..read]);
        }
        Ok(incoming)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(bytes);
        }
        if self.len == 0
            && let Some(seed) = bytes.first_chunk::<8>()
        {
            self.pattern = Some(Pattern::new(u64::from_le_bytes(*seed)));
        }
        if let Some(pattern) = &self.pattern {
            self.expected.resize(bytes.len(), 0);
            pattern.fill(self.len, &mut self.expected);
            if self.expected != bytes {
                self.pattern = None;
            }
        }
        self.len += bytes.len() as u64;
        match &mut self.content {
            Some(content) if content.len() + bytes.len() <= MAX_WHOLE => content.extend(bytes),
            content => *content = None,
        }
    }

    pub(super) fn finish(self) -> Stored {
        let hash = self.context.map_or([0; 32], |context| {
            context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
        });
        Stored { len: self.len, hash, content: self.content.map(Into::into), pattern: self.pattern }
    }
}

/// Something with a name.
#[derive(Clone)]
pub(super) enum Entry {
    Folder,
    File(Stored),
}

/// Everything on the printer's disk, in the order in which it was made.
pub(super) struct Store {
    entries: Vec<(String, Entry)>,
}

impl Store {
    pub(super) fn new() -> Self {
        let folders = ["/", "/cache", "/model", "/timelapse"];
        Self { entries: folders.map(|path| (path.to_owned(), Entry::Folder)).to_vec() }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|(known, _)| known == path).map(|(_, entry)| entry)
    }

    pub(super) fn file(&self, path: &str) -> Option<&Stored> {
        match self.get(path)? {
            Entry::File(stored) => Some(stored),
            Entry::Folder => None,
        }
    }

    pub(super) fn is_folder(&self, path: &str) -> bool {
        matches!(self.get(path), Some(Entry::Folder))
    }

    /// Whether a file of this name may be written.
    pub(super) fn has_room_for(&self, path: &str) -> bool {
        let files = self.entries.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        match self.get(path) {
            Some(Entry::File(_)) => true,
            Some(Entry::Folder) => false,
            None => {
                files.count() < MAX_FILES && path.len() <= MAX_PATH && self.is_folder(parent(path))
            }
        }
    }

    /// Keeps a file, in the place of an older one if there is one. False when there is no room.
    pub(super) fn put(&mut self, path: &str, stored: Stored) -> bool {
        if !self.has_room_for(path) {
            return false;
        }
        self.entries.retain(|(known, _)| known != path);
        self.entries.push((path.to_owned(), Entry::File(stored)));
        true
    }

    pub(super) fn make_folder(&mut self, path: &str) -> bool {
        let folders = self.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Folder));
        let possible = folders.count() < MAX_FOLDERS
            && path.len() <= MAX_PATH
            && self.get(path).is_none()
            && self.is_folder(parent(path));
        if possible {
            self.entries.push((path.to_owned(), Entry::Folder));
        }
        possible
    }

    pub(super) fn remove_folder(&mut self, path: &str) -> bool {
        let possible = path != "/" && self.is_folder(path) && self.children(path).next().is_none();
        if possible {
            self.entries.retain(|(known, _)| known != path);
        }
        possible
    }

    pub(super) fn remove_file(&mut self, path: &str) -> bool {
        let possible = self.file(path).is_some();
        if possible {
            self.entries.retain(|(known, _)| known != path);
        }
        possible
    }

    /// Gives a file another name. Folders keep theirs.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(stored) = self.file(from).cloned() else { return false };
        if from == to {
            return true;
        }
        if self.is_folder(to) || !self.is_folder(parent(to)) || to.len() > MAX_PATH {
            return false;
        }
        self.entries.retain(|(known, _)| known != from);
        self.put(to, stored)
    }

    /// What lies directly in a folder: names without their path.
    pub(super) fn children(&self, folder: &str) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .iter()
            .filter(|(path, _)| path != "/")
            .filter(move |(path, _)| parent(path) == folder)
            .map(|(path, entry)| (name(path), entry))
    }
}

/// The folder of a path.
fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

/// The last part of a path.
pub(super) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The whole path of what a client named while in `folder`. No path leads above the root.
pub(super) fn resolve(folder: &str, named: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if named.starts_with('/') { "" } else { folder };
    for part in base.split('/').chain(named.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
