//! Damages files: as bytes, and as messages of protobuf that stay whole, so that the damage reaches what they mean.

/// Random numbers by xorshift.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| _ = random.next());
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }
}

/// A number as the format writes it.
fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 128 {
        bytes.push(n as u8 | 128);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        n |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(n);
        }
    }
    None
}

/// Small numbers, and those at which sizes overflow.
fn number(random: &mut Random) -> u64 {
    let large = [1 << 14, 1 << 20, i64::from(i32::MAX), 1 << 28, 1 << 31, 1 << 62, i64::MAX, i64::MIN, -1, -2];
    match random.below(2) {
        0 => random.below(12) as u64,
        _ => large[random.below(large.len())] as u64,
    }
}

/// A field: its tag with the wire type, and its content.
type Field = (u64, Vec<u8>);

/// The fields of a message, if the bytes are one.
fn fields(bytes: &[u8]) -> Option<Vec<Field>> {
    let (mut at, mut found) = (0, vec![]);
    while at < bytes.len() {
        let tag = read_varint(bytes, &mut at)?;
        let length = match tag & 7 {
            0 => {
                let start = at;
                read_varint(bytes, &mut at)?;
                let length = at - start;
                at = start;
                length
            }
            1 => 8,
            2 => usize::try_from(read_varint(bytes, &mut at)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let content = bytes.get(at..at.checked_add(length)?)?;
        at += length;
        (tag >> 3 > 0).then_some(())?;
        found.push((tag, content.to_vec()));
    }
    Some(found)
}

fn written(fields: &[Field]) -> Vec<u8> {
    let mut bytes = vec![];
    for (tag, content) in fields {
        bytes.extend(varint(*tag));
        if tag & 7 == 2 {
            bytes.extend(varint(content.len() as u64));
        }
        bytes.extend(content);
    }
    bytes
}

/// Damages a field at some depth of a message.
fn message(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut fields = fields(bytes).filter(|fields| !fields.is_empty())?;
    let at = random.below(fields.len());
    let (tag, content) = &mut fields[at];
    if *tag & 7 == 2
        && random.below(8) > 0
        && let Some(damaged) = message(content, random)
    {
        *content = damaged;
        return Some(written(&fields));
    }
    match (random.below(4), *tag & 7) {
        (0, _) => drop(fields.remove(at)),
        (1, _) => {
            let other = fields[random.below(fields.len())].1.clone();
            fields[at].1 = if fields[at].0 & 7 == 2 { other } else { varint(number(random)) };
        }
        (_, 0) => *content = varint(number(random)),
        (2, 2) => {
            let copy = fields[at].clone();
            fields.insert(random.below(fields.len()), copy);
        }
        _ => *content = bytes_of(content, random),
    }
    Some(written(&fields))
}

/// Damages bytes.
fn bytes_of(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(16)).min(bytes.len());
    match random.below(6) {
        _ if bytes.is_empty() => bytes.push(random.next() as u8),
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.extend_from_within(at..end),
        3 => drop(bytes.splice(at..end, varint(number(random)))),
        4 => bytes[at] ^= 1 << random.below(8),
        _ => bytes[at] = random.next() as u8,
    }
    bytes
}

/// One of the files, damaged one to four times.
pub fn damaged(files: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = files[random.below(files.len())].clone();
    for _ in 0..1 + random.below(4) {
        let whole = if random.below(8) > 0 { message(&bytes, &mut random) } else { None };
        bytes = whole.unwrap_or_else(|| bytes_of(&bytes, &mut random));
    }
    bytes
}
