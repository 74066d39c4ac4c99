//! Many entries of a map by one system call (Linux 5.6), which aya does not offer; one by one where the kernel cannot.

use super::syscall::bpf;
use aya::Pod;
use aya::maps::MapData;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;

/// What kernel code returns for an operation that a kind of map lacks; it is in no libc.
const ENOTSUPP: i32 = 524;

/// Entries a system call: the kernel copies them one after the other, and may be interrupted only between calls.
const CHUNK: usize = 16_384;

/// A map with keys `K` and values `V`, for bulk changes.
pub struct BatchMap<K, V> {
    map: MapData,
    entries: PhantomData<(K, V)>,
}

/// For `BPF_MAP_*_BATCH`.
#[repr(C)]
struct Batch {
    before: u64,
    after: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// For `BPF_MAP_*_ELEM` and `BPF_MAP_GET_NEXT_KEY`.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<K: Pod, V: Pod> BatchMap<K, V> {
    /// Takes a map whose keys and values have the sizes of `K` and `V`.
    pub fn new(map: MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if (info.key_size() as usize, info.value_size() as usize) == (size_of::<K>(), size_of::<V>()) {
            Ok(Self { map, entries: PhantomData })
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "its keys or values have another size"))
        }
    }

    /// Writes entries, whether they are there already or not.
    pub fn update(&self, entries: &[(K, V)]) -> io::Result<()> {
        for chunk in entries.chunks(CHUNK) {
            let keys: Vec<K> = chunk.iter().map(|(key, _)| *key).collect();
            let values: Vec<V> = chunk.iter().map(|(_, value)| *value).collect();
            let mut attr = self.batch(&keys, Some(&values));
            // SAFETY: the structure is the one of this command; it points to `count` keys and values.
            match unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) } {
                Err(error) if is_unsupported(&error) => {
                    for (key, value) in chunk {
                        self.update_one(key, value)?;
                    }
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Removes entries; those that are not there are fine.
    pub fn remove(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(CHUNK)];
            let mut attr = self.batch(chunk, None);
            // SAFETY: as above; this command takes keys alone.
            let done = match unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attr) } {
                Ok(_) => chunk.len(),
                Err(error) if is_unsupported(&error) => {
                    self.remove_one(&chunk[0])?;
                    1
                }
                // It stops at an entry that is not there, and says how many it has done before.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    (attr.count as usize + 1).min(chunk.len())
                }
                Err(error) => return Err(error),
            };
            rest = &rest[done..];
        }
        Ok(())
    }

    /// All entries. One that is written meanwhile may be missed or seen twice.
    pub fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut found = Vec::new();
        // For a hash the kernel's cursor is a bucket number, for others a key.
        let mut cursor = [0u8; 64];
        let mut next = [0u8; 64];
        let mut first = true;
        let mut keys: Vec<K> = Vec::with_capacity(CHUNK);
        let mut values: Vec<V> = Vec::with_capacity(CHUNK);
        loop {
            let mut attr = Batch {
                before: if first { 0 } else { cursor.as_ptr() as u64 },
                after: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                ..self.batch(&[], None)
            };
            attr.count = CHUNK as u32;
            // SAFETY: the structure is the one of this command; keys and values have room for `count`.
            let outcome = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
            let last = match outcome {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) if first && is_unsupported(&error) => return self.entries_one_by_one(),
                Err(error) => return Err(error),
            };
            let count = (attr.count as usize).min(CHUNK);
            // SAFETY: the kernel has written `count` of each, and every bit pattern is a value.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            found.extend(keys.drain(..).zip(values.drain(..)));
            if last {
                return Ok(found);
            }
            cursor = next;
            first = false;
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = std::mem::MaybeUninit::<V>::uninit();
        let mut attr = self.element((&raw const *key) as u64, value.as_mut_ptr() as u64);
        // SAFETY: the structure is the one of this command; it points to a key, and to room for a value.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
            // SAFETY: the kernel has written it, and every bit pattern is a value.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        }
    }

    /// How many entries it holds at most.
    pub fn capacity(&self) -> io::Result<usize> {
        Ok(self.map.info().map_err(io::Error::other)?.max_entries() as usize)
    }

    fn update_one(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attr = self.element((&raw const *key) as u64, (&raw const *value) as u64);
        // SAFETY: the structure is the one of this command; it points to a key and a value.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    fn remove_one(&self, key: &K) -> io::Result<()> {
        let mut attr = self.element((&raw const *key) as u64, 0);
        // SAFETY: as above, a key alone.
        match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    fn entries_one_by_one(&self) -> io::Result<Vec<(K, V)>> {
        let mut found: Vec<(K, V)> = Vec::new();
        loop {
            let mut key = std::mem::MaybeUninit::<K>::uninit();
            let before = found.last().map_or(0, |(key, _)| (&raw const *key) as u64);
            let mut attr = self.element(before, key.as_mut_ptr() as u64);
            // SAFETY: the structure is the one of this command; it points to a key, or nothing, and to room for one.
            match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
                other => drop(other?),
            }
            // SAFETY: the kernel has written it, and every bit pattern is a value.
            let key = unsafe { key.assume_init() };
            let mut value = std::mem::MaybeUninit::<V>::uninit();
            let mut attr = self.element((&raw const key) as u64, value.as_mut_ptr() as u64);
            // SAFETY: the structure is the one of this command; it points to a key, and to room for a value.
            unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
            // SAFETY: as for the key.
            found.push((key, unsafe { value.assume_init() }));
        }
    }

    fn batch(&self, keys: &[K], values: Option<&[V]>) -> Batch {
        Batch {
            before: 0,
            after: 0,
            keys: keys.as_ptr() as u64,
            values: values.map_or(0, |values| values.as_ptr() as u64),
            count: keys.len() as u32,
            map: self.descriptor(),
            element_flags: 0,
            flags: 0,
        }
    }

    fn element(&self, key: u64, value: u64) -> Element {
        Element { map: self.descriptor(), padding: 0, key, value, flags: 0 }
    }

    fn descriptor(&self) -> u32 {
        self.map.fd().as_fd().as_raw_fd().cast_unsigned()
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EINVAL | libc::EOPNOTSUPP))
}
