//! What a node is linked to, as far as it is known before a run: for checks that one node alone cannot make.

use crate::node::{DynNode, Node};

/// The links of a node, socket by socket.
pub struct Links<'a> {
    links: Vec<LinkedNode<'a>>,
}

/// One link: where it leads.
pub struct LinkedNode<'a> {
    /// The socket that takes the link.
    pub socket: &'static str,
    /// Its number among the socket's links.
    pub index: usize,
    /// The producer's name in the document.
    pub name: &'a str,
    /// The producer, where its parameters are sound.
    pub node: Option<&'a dyn DynNode>,
    /// The variant (model family) of the value, where it is known.
    pub variant: Option<&'a str>,
    /// The producer's own links, when they are asked for.
    pub upstream: Box<dyn Fn() -> Links<'a> + 'a>,
}

impl<'a> Links<'a> {
    pub fn new(links: Vec<LinkedNode<'a>>) -> Links<'a> {
        Links { links }
    }

    /// The links of `socket` that lead to nodes of the type `N`.
    pub fn to<N: Node>(&self, socket: &str) -> impl Iterator<Item = (&LinkedNode<'a>, &'a N)> {
        let links = self.links.iter().filter(move |link| link.socket == socket);
        links.filter_map(|link| Some((link, link.node?.as_any().downcast_ref::<N>()?)))
    }

    /// Whether anything is linked to `socket`.
    pub fn has(&self, socket: &str) -> bool {
        self.links.iter().any(|link| link.socket == socket)
    }

    /// The variant (model family) of what the first link of `socket` gives.
    pub fn variant(&self, socket: &str) -> Option<&'a str> {
        self.links.iter().find(|link| link.socket == socket)?.variant
    }
}
