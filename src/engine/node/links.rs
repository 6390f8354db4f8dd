//! What a node is linked to, as far as it is known before a run: for checks that need more than one node.

use std::any::Any;

/// What a node declares of an output: a value of a type on which nodes agree.
pub type Declaration = Box<dyn Any>;

/// The links of a node, socket by socket.
pub struct Links<'a> {
    links: Vec<LinkedNode<'a>>,
    /// The sockets that the document gives a link, even if it leads nowhere.
    given: Vec<&'static str>,
}

/// A link, and what is known of the value at its other end.
pub struct LinkedNode<'a> {
    /// The socket that takes the link.
    pub socket: &'static str,
    /// The position of the link among those of its socket.
    pub index: usize,
    /// The producer's name in the document.
    pub name: &'a str,
    /// The variant (model family) of the value, if it is known.
    pub variant: Option<&'a str>,
    /// What the producer declares of the value: see [`Node::declare`](crate::Node::declare).
    pub declaration: Option<&'a dyn Any>,
}

impl<'a> Links<'a> {
    /// The links that lead to a node, and the sockets that the document gives any.
    pub fn new(links: Vec<LinkedNode<'a>>, given: Vec<&'static str>) -> Links<'a> {
        Links { links, given }
    }

    /// The links of `socket` whose values have a declaration of the type `D`.
    pub fn declared<D: 'static>(&self, socket: &str) -> impl Iterator<Item = (&LinkedNode<'a>, &'a D)> {
        let links = self.links.iter().filter(move |link| link.socket == socket);
        links.filter_map(|link| Some((link, link.declaration?.downcast_ref::<D>()?)))
    }

    /// The declaration of the type `D` of the value at the first link of `socket`.
    pub fn declaration<D: 'static>(&self, socket: &str) -> Option<&'a D> {
        self.links.iter().find(|link| link.socket == socket)?.declaration?.downcast_ref()
    }

    /// The links of `socket`.
    pub fn of(&self, socket: &str) -> impl Iterator<Item = &LinkedNode<'a>> {
        self.links.iter().filter(move |link| link.socket == socket)
    }

    /// Whether `socket` is given a link. The check has reported a link that leads nowhere, and its place is not empty.
    pub fn has(&self, socket: &str) -> bool {
        self.given.contains(&socket)
    }

    /// The variant (model family) of the value at the first link of `socket`.
    pub fn variant(&self, socket: &str) -> Option<&'a str> {
        self.links.iter().find(|link| link.socket == socket)?.variant
    }
}
