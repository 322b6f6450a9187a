//! The house rules that a compiler does not know, kept by reading the sources.
//!
//! A room uses only rooms on floors below its own, so the picture in `src/lib.rs` and `docs/architecture-map.md` cannot
//! drift from the code; no two files use each other, however far round; a type's name means one thing; a function or a
//! file that is long says why, in a line of its doc that begins with "Long because". `UPDATE=1 cargo test --test
//! floors` draws the map anew.

#[cfg(test)]
#[path = "floors/breaches.rs"]
mod breaches;
#[cfg(test)]
#[path = "floors/graph.rs"]
mod graph;
#[cfg(test)]
#[path = "floors/house.rs"]
mod house;
#[cfg(test)]
#[path = "floors/map.rs"]
mod map;
#[cfg(test)]
#[path = "floors/rules.rs"]
mod rules;
#[cfg(test)]
#[path = "floors/source.rs"]
mod source;
#[cfg(test)]
#[path = "floors/tests.rs"]
mod tests;
