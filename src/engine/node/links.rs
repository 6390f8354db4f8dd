//! What a node is linked to, as far as it is known before a run: for checks that need more than one node.

use std::any::Any;

/// The links of a node, socket by socket.
pub struct Links<'a> {
    links: Vec<LinkedNode<'a>>,
}

/// A link, and the node at its other end.
pub struct LinkedNode<'a> {
    /// The socket that takes the link.
    pub socket: &'static str,
    /// The position of the link among those of its socket.
    pub index: usize,
    /// The producer's name in the document.
    pub name: &'a str,
    /// The producer's parameters, a struct that implements [`Node`](crate::Node); `None` if they are invalid.
    pub node: Option<&'a dyn Any>,
    /// The variant (model family) of the value, if it is known.
    pub variant: Option<&'a str>,
    /// Returns the producer's own links.
    pub upstream: Box<dyn Fn() -> Links<'a> + 'a>,
}

impl<'a> Links<'a> {
    /// The given links.
    pub fn new(links: Vec<LinkedNode<'a>>) -> Links<'a> {
        Links { links }
    }

    /// The links of `socket` to nodes of the type `N`.
    pub fn to<N: 'static>(&self, socket: &str) -> impl Iterator<Item = (&LinkedNode<'a>, &'a N)> {
        let links = self.links.iter().filter(move |link| link.socket == socket);
        links.filter_map(|link| Some((link, link.node?.downcast_ref::<N>()?)))
    }

    /// Whether `socket` has a link.
    pub fn has(&self, socket: &str) -> bool {
        self.links.iter().any(|link| link.socket == socket)
    }

    /// The variant (model family) of the value at the first link of `socket`.
    pub fn variant(&self, socket: &str) -> Option<&'a str> {
        self.links.iter().find(|link| link.socket == socket)?.variant
    }
}
