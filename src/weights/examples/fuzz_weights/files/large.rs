//! Files that are cheap to write and would be expensive to read, to find readers that trust what a file claims.

use super::{MAGIC, safetensors, zip};

/// Fills a file of about so many bytes with objects that take much memory for each byte.
type Fill = fn(usize) -> Vec<u8>;

fn pickled(start: &[u8], again: &[u8], end: &[u8], size: usize) -> Vec<u8> {
    let mut pickle = start.to_vec();
    while pickle.len() + again.len() + end.len() < size {
        pickle.extend(again);
    }
    pickle.extend(end);
    zip(&[("a/data.pkl".to_string(), pickle), ("a/data/0".into(), vec![0; 16])])
}

fn tensors_of(entry: fn(usize) -> String, size: usize) -> Vec<u8> {
    let mut header = String::from("{");
    for i in 0.. {
        let next = entry(i);
        if header.len() + next.len() + 1 > size {
            break;
        }
        header += &next;
        header.push(',');
    }
    header.pop();
    header.push('}');
    safetensors(header, &[])
}

/// A tensor of four numbers, stored as memo 1.
const TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQK\0K\x04\x85K\x01\x85\
    \x89ccollections\nOrderedDict\n)RtRq\x01";

pub const LARGE: &[(&str, Fill)] = &[
    ("nothing, over and over", |n| pickled(b"\x80\x02", b"N", b".", n)),
    ("marks", |n| pickled(b"\x80\x02", b"(", b".", n)),
    ("dictionaries", |n| pickled(b"\x80\x02(", b"}", b"t.", n)),
    ("dictionaries of one item", |n| pickled(b"\x80\x02(", b"}NNs", b"t.", n)),
    ("dictionaries in each other", |n| pickled(b"\x80\x02", b"}U\x01a", b"}.", n)),
    ("tuples in each other", |n| pickled(b"\x80\x02)", b"\x85", b".", n)),
    ("tuples of two of the one before", |n| pickled(b"\x80\x02)", b"2\x86", b".", n)),
    ("dictionaries of two of the one before", |n| pickled(b"\x80\x02}q\0", b"}(U\x01ah\0U\x01bh\0uq\0", b".", n)),
    ("a dictionary in itself", |n| pickled(b"\x80\x02}q\0", b"U\x01ah\0s", b".", n)),
    ("a list copied into dictionaries", |n| {
        let pairs = b"K\x01K\x02\x86".repeat(n / 8);
        pickled(&[b"\x80\x02](", &pairs[..], b"eq\0"].concat(), b"ccollections\nOrderedDict\nh\0\x85R0", b".", n)
    }),
    ("the memo", |n| pickled(b"\x80\x04N", b"\x94", b".", n)),
    ("classes", |n| pickled(b"\x80\x02", b"ca\nb\n", b".", n)),
    ("one tensor under many names", |n| {
        let start = [b"\x80\x02}", TENSOR, b"0("].concat();
        let mut pickle = start;
        for i in 0..n / 9 {
            pickle.extend([b"J", &(i as u32).to_le_bytes()[..], b"h\x01"].concat());
        }
        pickle.extend(b"u.");
        zip(&[("a/data.pkl".to_string(), pickle), ("a/data/0".into(), vec![0; 16])])
    }),
    ("one tensor under a long name many times", |n| {
        let key = vec![b'k'; n / 3];
        let mut start =
            [b"\x80\x02", TENSOR, b"0}q\x02X", &(key.len() as u32).to_le_bytes()[..], &key, b"q\x03]("].concat();
        start.extend(b"h\x01".repeat(n / 4));
        start.extend(b"es");
        pickled(&start, b"", b".", 0)
    }),
    ("one long shape for many tensors", |n| {
        let shape = b"K\x01".repeat(n / 4);
        let start = [b"\x80\x02](", &shape[..], b"tq\x02"].concat();
        let again = b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQK\0h\x02h\x02\x89NtR";
        pickled(&start, again, b"e.", n)
    }),
    ("entries of a zip", |n| {
        let mut entries = vec![("a/data.pkl".to_string(), b"\x80\x02}.".to_vec())];
        entries.extend((0..n / 90).map(|i| (format!("{i}"), vec![])));
        zip(&entries)
    }),
    ("ends of a zip", |n| {
        [b"PK\x03\x04", &b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0".repeat(n / 22)[..]].concat()
    }),
    ("storages in a row", |n| {
        let mut file = [MAGIC, b"\x80\x02}."].concat();
        file.extend([b"\x80\x02}(U\x01t", TENSOR, b"u.\x80\x02]("].concat());
        file.extend(b"U\x010".repeat(n / 4));
        file.extend(b"e.");
        file
    }),
    ("tensors of nothing", |n| {
        tensors_of(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#), n)
    }),
    ("shapes of ones", |n| {
        let shape = vec!["1"; n / 2].join(",");
        safetensors(format_args!(r#"{{"a":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}"#), &[0])
    }),
    ("brackets", |n| safetensors("[".repeat(n), &[])),
    ("objects", |n| safetensors(r#"{"a":"#.repeat(n / 5), &[])),
    ("metadata", |n| {
        let pairs: Vec<_> = (0..n / 12).map(|i| format!(r#""{i}":"""#)).collect();
        safetensors(format_args!(r#"{{"__metadata__":{{{}}}}}"#, pairs.join(",")), &[])
    }),
    ("a shape that is everything", |_| {
        safetensors(
            r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
            &[0; 8],
        )
    }),
];
