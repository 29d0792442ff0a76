//! The stack machine that a pickle is a program for, reduced to the instructions that build values.
//!
//! `REDUCE`, `NEWOBJ` and their kin, which in Python call functions, only note here what was to be called. Every
//! instruction checks what it takes from the stack and from the file, so that any bytes end in a value or a reason.

use std::collections::HashMap;

use super::{Id, Node, Object};

/// Values of one pickle; far more than any checkpoint has, and at most a few hundred megabytes.
const MAX_NODES: usize = 1 << 22;

/// What an instruction may fail with.
type Step<T> = Result<T, String>;

/// Program, program counter and memory.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// Runs to the end of the pickle, and returns what is on top of the stack there.
    pub(super) fn run(&mut self) -> Step<Id> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                op => self.step(op)?,
            }
        }
    }

    /// Executes one instruction; their letters are those of Python's `pickletools`.
    fn step(&mut self, op: u8) -> Step<()> {
        match op {
            0x80 => self.take(1).map(drop), // PROTO
            0x95 => self.take(8).map(drop), // FRAME: the instructions follow in any case
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                self.stack.push(self.top()?);
                Ok(())
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' | b'K' | b'M' | 0x8a | 0x8b => self.integer(op),
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value))
            }
            b'X' | 0x8c | 0x8d | b'T' | b'U' => self.text(op),
            b'B' | b'C' | 0x8e | 0x96 => self.raw(op),
            b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new())), // EMPTY_TUPLE, EMPTY_LIST, EMPTY_SET
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Sequence(items))
            }
            0x85..=0x87 => self.short_tuple(usize::from(op - 0x84)),
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(pairs(&items)?))
            }
            b'a' | b'e' | 0x90 | b's' | b'u' => self.fill(op),
            b'c' | 0x93 => self.class(op),
            b'R' | 0x81 | 0x92 | b'o' => self.object(op),
            b'b' => self.build(),
            b'Q' => {
                let reference = self.pop()?;
                self.push(Node::Persistent(reference))
            }
            b'q' | b'r' | 0x94 => self.put(op),
            b'h' | b'j' => self.get(op),
            other => Err(format!("instruction 0x{other:02x} is not supported")),
        }
    }

    fn integer(&mut self, op: u8) -> Step<()> {
        let value = match op {
            b'J' => i128::from(i32::from_le_bytes(self.array()?)),
            b'K' => i128::from(self.byte()?),
            b'M' => i128::from(u16::from_le_bytes(self.array()?)),
            _ => {
                let length = if op == 0x8a {
                    u64::from(self.byte()?)
                } else {
                    u64::from(u32::from_le_bytes(self.array()?))
                };
                let digits = self.take(length)?;
                match long(digits) {
                    Some(value) => value,
                    None => return self.push(Node::Bytes(digits.to_vec())),
                }
            }
        };
        self.push(Node::Int(value))
    }

    fn text(&mut self, op: u8) -> Step<()> {
        let bytes = match op {
            0x8c | b'U' => self.prefixed::<1>()?,
            0x8d => self.prefixed::<8>()?,
            _ => self.prefixed::<4>()?,
        };
        // Strings of Python 2 (`T`, `U`) are bytes in no known encoding; names in checkpoints are ASCII.
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.push(Node::Str(text))
    }

    fn raw(&mut self, op: u8) -> Step<()> {
        let bytes = match op {
            b'C' => self.prefixed::<1>()?,
            b'B' => self.prefixed::<4>()?,
            _ => self.prefixed::<8>()?,
        };
        self.push(Node::Bytes(bytes.to_vec()))
    }

    fn short_tuple(&mut self, n: usize) -> Step<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        items.reverse();
        self.push(Node::Sequence(items))
    }

    /// Appends to the container on top: items (`a`, `e`, ADDITEMS) or entries (`s`, `u`).
    fn fill(&mut self, op: u8) -> Step<()> {
        let mut items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let container = self.top()?;
        match (&mut self.nodes[container.0 as usize], op) {
            (Node::Sequence(list), b'a' | b'e' | 0x90) => list.append(&mut items),
            (Node::Dict(entries), b's' | b'u') => entries.append(&mut pairs(&items)?),
            (Node::Object(object), b's' | b'u') => object.entries.append(&mut pairs(&items)?),
            (Node::Object(_), _) => {} // a kind of list: opaque, and of no use here
            _ => return Err("items for something that is no container".to_owned()),
        }
        Ok(())
    }

    fn class(&mut self, op: u8) -> Step<()> {
        let name = if op == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            format!("{module}.{name}")
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.nodes[module.0 as usize], &self.nodes[name.0 as usize]) {
                (Node::Str(module), Node::Str(name)) => format!("{module}.{name}"),
                _ => return Err("a class whose name is no text".to_owned()),
            }
        };
        self.push(Node::Global(name))
    }

    /// A call (`R`) or a new object (NEWOBJ, NEWOBJ_EX, OBJ): kept as what was to be called with what.
    fn object(&mut self, op: u8) -> Step<()> {
        let (class, args) = match op {
            b'o' => {
                let items = self.pop_mark()?;
                let (class, args) = items.split_first().ok_or("an object without a class")?;
                (*class, self.add(Node::Sequence(args.to_vec()))?)
            }
            _ => {
                if op == 0x92 {
                    self.pop()?; // keyword arguments
                }
                let args = self.pop()?;
                (self.pop()?, args)
            }
        };
        self.push(Node::Object(Object { class, args, state: None, entries: Vec::new() }))
    }

    fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Node::Object(object) = &mut self.nodes[target.0 as usize] {
            object.state = Some(state);
        }
        Ok(())
    }

    fn put(&mut self, op: u8) -> Step<()> {
        let key = match op {
            b'q' => u64::from(self.byte()?),
            b'r' => u64::from(u32::from_le_bytes(self.array()?)),
            _ => self.memo.len() as u64, // MEMOIZE
        };
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn get(&mut self, op: u8) -> Step<()> {
        let key =
            if op == b'h' { u64::from(self.byte()?) } else { u64::from(u32::from_le_bytes(self.array()?)) };
        let id = *self.memo.get(&key).ok_or("a reference to nothing")?;
        self.stack.push(id);
        Ok(())
    }

    fn add(&mut self, node: Node) -> Step<Id> {
        if self.nodes.len() == MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        self.nodes.push(node);
        Ok(Id(self.nodes.len() as u32 - 1))
    }

    fn push(&mut self, node: Node) -> Step<()> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    /// The value on top, not below the last mark.
    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(|above| above.last()).copied().ok_or("the stack is empty".to_owned())
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("as many bytes were taken"))
    }

    /// Bytes with their length before them, in `N` bytes little-endian.
    fn prefixed<const N: usize>(&mut self) -> Step<&'a [u8]> {
        let mut length = [0; 8];
        length[..N].copy_from_slice(&self.array::<N>()?);
        self.take(u64::from_le_bytes(length))
    }

    fn take(&mut self, n: u64) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let n = usize::try_from(n).ok().filter(|&n| n <= rest.len()).ok_or("the file ends here")?;
        self.at += n;
        Ok(&rest[..n])
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        self.at += n + 1;
        Ok(String::from_utf8_lossy(&rest[..n]).into_owned())
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".to_owned()),
    }
}

/// A two's complement integer, little-endian; `None` beyond 128 bits.
fn long(digits: &[u8]) -> Option<i128> {
    let negative = digits.last().is_some_and(|&byte| byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide.get_mut(..digits.len())?.copy_from_slice(digits);
    Some(i128::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &[u8]) -> Step<(Vec<Node>, Id)> {
        let mut machine = Machine::new(program);
        let root = machine.run()?;
        Ok((machine.into_nodes(), root))
    }

    fn value(program: &[u8]) -> Node {
        let (nodes, root) = run(program).unwrap();
        nodes[root.0 as usize].clone()
    }

    #[test]
    fn integers_of_all_lengths() {
        for (program, expected) in [
            (&b"K\xff."[..], 255),
            (b"M\x01\x02.", 0x0201),
            (b"J\xfe\xff\xff\xff.", -2),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\x80.", -128),
            (b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 0x1950_a86a_20f9_469c_fc6c),
            (b"\x8b\x02\0\0\0\x00\x01.", 256),
        ] {
            assert_eq!(value(program), Node::Int(expected));
        }
        assert_eq!(value(&[&b"\x8a\x11"[..], &[1; 17], b"."].concat()), Node::Bytes(vec![1; 17]));
    }

    #[test]
    fn calls_are_noted_and_not_made() {
        let (nodes, root) = run(b"cposix\nsystem\nX\x04\0\0\0exit\x85R.").unwrap();
        let Node::Object(call) = &nodes[root.0 as usize] else { panic!("no object") };
        assert_eq!(nodes[call.class.0 as usize], Node::Global("posix.system".to_owned()));
        assert!(matches!(&nodes[call.args.0 as usize], Node::Sequence(args) if args.len() == 1));
    }

    #[test]
    fn shared_values_stay_shared() {
        // A list that is memoised, put into a tuple twice, and appended to afterwards.
        let (nodes, root) = run(b"]q\x00h\x00h\x00\x86h\x00K\x05a0.").unwrap();
        let Node::Sequence(pair) = &nodes[root.0 as usize] else { panic!("no tuple") };
        assert_eq!(pair[0], pair[1]);
        assert!(matches!(&nodes[pair[0].0 as usize], Node::Sequence(items) if items.len() == 1));
    }

    #[test]
    fn nonsense_ends_in_a_reason() {
        for program in [
            &b""[..],
            b".",
            b"K",
            b"0.",
            b"t.",
            b"a.",
            b"K\x01K\x02a.",
            b"h\x00.",
            b"R.",
            b"}(K\x01u.",
            b"(o.",
            b"(0.",
            b"X\xff\xff\xff\xff.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"cmodule",
            b"\xff.",
            b"K\x01K\x02\x93.",
            b"I1\n.",
            b"b.",
            b"q\x00.",
            b"\x87.",
        ] {
            assert!(run(program).is_err(), "{program:?}");
        }
    }

    #[test]
    fn a_list_of_itself_and_deep_nesting_are_harmless() {
        assert!(run(b"]q\x00h\x00a.").is_ok());
        let deep = [&b")"[..], &b"\x85".repeat(1_000_000), b"."].concat();
        assert!(run(&deep).is_ok());
        let many = [b"N".repeat(MAX_NODES + 1), b".".to_vec()].concat();
        assert!(run(&many).unwrap_err().contains("more than"));
    }
}
