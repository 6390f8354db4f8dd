//! Codes of what the command line gives to a graph, and of plans.

use super::{Code, other, rows, set};

pub const CODES: [Code; 4] = [
    Code {
        name: "override",
        summary: "the value of `--set` or `--sweep` cannot be read",
        explanation: "Write `--set name=value`, with the name of one of the graph's `params`. A text takes the \
            value as it is written. For any other parameter a value in quotes, `[…]` or `{…}` is read as YAML; any other is \
            a number, `true`, `false`, `null` or a text. `--sweep name=a,b,c` takes \
            several values, separated by commas outside of brackets and quotes.",
        example: set("seed:7\n", "seed=7\n"),
    },
    Code {
        name: "row",
        summary: "a row of `--inputs` cannot be read",
        explanation: "A row of a .jsonl file is one JSON object on one line, with parameters of the graph as its names. A \
            row of a .csv file has as many cells as the header; a cell with a comma is quoted, and a quote inside quotes \
            is doubled.",
        example: rows("{\"prompt\": \"a red circle\", \"seed\": 7\n", "{\"prompt\": \"a red circle\", \"seed\": 7}\n"),
    },
    Code {
        name: "row-id",
        summary: "the `id` of a row cannot name its folder, or is taken",
        explanation: "`id` names the row and the folder that it writes to. It must differ between rows (also on file \
            systems that ignore case), must not be a file of the run itself, and must be a name that every file system \
            takes. Rows without an `id` are numbered.",
        example: rows("{\"id\": \"red/circle\", \"seed\": 7}\n", "{\"id\": \"red-circle\", \"seed\": 7}\n"),
    },
    Code {
        name: "unplannable",
        summary: "a valid graph cannot be planned, or a file for it cannot be fetched",
        explanation: "A plan needs the content of every file that the graph reads, and models from the hub must be \
            downloaded first. A file changed or vanished since the check, cannot be read, or the download failed. Or a \
            node would have to replace a file that lsregen did not write. The message names the node and the cause.",
        example: other(
            "  photo: { type: LoadImage, path: photo.png }    # deleted after the check\n",
            "  photo: { type: LoadImage, path: photo.png }    # exists until the run has read it\n",
        ),
    },
];
