//! A safe reader of pickles: a stack machine that builds values and never runs anything.
//!
//! A pickle is a program for a virtual machine whose "call this function" is, here, a value like any other: unknown
//! classes and calls become an opaque [`Node::Object`] with their arguments, and who reads the result decides what the
//! few known ones mean. Values live in one arena and refer to each other by index, so that cycles and deep nesting are
//! harmless; an instruction makes at most one value, so memory is bounded by the length of the file.
//!
//! candle has a pickle reader as well. It lacks what published checkpoints need: long integers, foreign classes with
//! their state, and the container from before PyTorch 1.6. Protocol 0 (text) is not read: PyTorch writes 2 and above.

mod machine;

use machine::Machine;

/// Index of a value in a [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(u32);

/// A value. Integers beyond 128 bits are kept as `Bytes`, little-endian.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// Lists, tuples and sets.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by name: `module.name`.
    Global(String),
    /// A call that was not made, or an object that was not built.
    Object(Object),
    /// A reference to something outside the pickle, here to a storage.
    Persistent(Id),
}

/// What a pickle says about an object of a class that only Python knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    /// The class or function, a `Global` in honest files.
    pub(crate) class: Id,
    /// Its arguments, a `Sequence`.
    pub(crate) args: Id,
    /// What it was to be updated with, in most cases a `Dict` of its fields.
    pub(crate) state: Option<Id>,
    /// Its entries, if it is a kind of dictionary.
    pub(crate) entries: Vec<(Id, Id)>,
}

/// All values of a pickle, and the one it stands for.
#[derive(Debug)]
pub(crate) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`; returns it with its length, since others may follow.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, usize), String> {
        let mut machine = Machine::new(bytes);
        let root = machine.run().map_err(|reason| format!("pickle, byte {}: {reason}", machine.at()))?;
        let length = machine.at();
        Ok((Self { nodes: machine.into_nodes(), root }, length))
    }

    /// The value that the pickle stands for.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(crate) fn str(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(&self, id: Id) -> Option<i128> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn global(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// Key and value of every entry of a dictionary, or of an object that is one, in order.
    pub(crate) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            Node::Object(object) if !object.entries.is_empty() => Some(&object.entries),
            _ => None,
        }
    }

    /// The value of a dictionary's entry, the last one if there are several, as Python has it.
    pub(crate) fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id)?.iter().rev().find(|(k, _)| self.str(*k) == Some(key)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Pickle {
        Pickle::read(bytes).unwrap().0
    }

    #[test]
    fn later_entries_win_and_objects_may_be_dictionaries() {
        let dict = read(b"\x80\x02}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u.");
        assert_eq!(dict.int(dict.get(dict.root(), "a").unwrap()), Some(2));
        assert_eq!(dict.get(dict.root(), "b"), None);
        let ordered = read(b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0aNu.");
        let value = ordered.get(ordered.root(), "a").unwrap();
        assert_eq!(ordered.node(value), &Node::None);
    }

    #[test]
    fn the_length_leads_to_the_next_pickle() {
        let bytes = b"\x80\x02K\x07.\x80\x02K\x08.";
        let (first, length) = Pickle::read(bytes).unwrap();
        assert_eq!((first.int(first.root()), length), (Some(7), 5));
        assert_eq!(read(&bytes[length..]).int(Id(0)), Some(8));
    }

    #[test]
    fn kinds_are_not_confused() {
        let pickle = read(b"\x80\x02X\x01\0\0\0a.");
        let root = pickle.root();
        assert_eq!(pickle.str(root), Some("a"));
        assert!(pickle.int(root).is_none() && pickle.sequence(root).is_none());
        assert!(pickle.global(root).is_none() && pickle.entries(root).is_none());
    }
}
