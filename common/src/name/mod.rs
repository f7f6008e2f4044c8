//! Host names: what a DNS query asks for, what an answer says, and which server the beginning of a TLS connection names.
//!
//! This code reads packets in the kernel and slices in the tests, by way of [`Content`]. What it can't make certain sense of,
//! it doesn't read at all: a query like that is refused, and of an answer like that nothing is learnt.

pub mod address;
pub mod hello;
pub mod message;
mod table;
pub mod text;

pub use table::{Asked, Held, NAMESERVERS, PORT, PacketLayout, Table, state};
pub use text::{LONGEST, ROOM, Text};

/// The bytes of a message, from its beginning on.
pub trait Content {
    /// Copies as many words as there is room for from `offset` on, as they lie in memory, and gives 0. If there aren't as
    /// many: zeros, and 1.
    fn load<const N: usize>(&self, offset: u32, to: &mut [u32; N]) -> u32;

    /// Copies `length` bytes from `offset` on to the beginning of `to`, and gives 0. If there aren't as many: anything, and 1.
    /// `length` is from 1 to 255.
    fn load_text(&self, offset: u32, length: u32, to: &mut Text) -> u32;

    /// Takes a step up to `times` times, as long as it gives 0. In the kernel this is `bpf_loop`, of which the verifier follows a
    /// step, but not each one.
    fn repeat<S: Step>(times: u32, step: &mut S);

    /// Returns `number` in a way that the compiler can't see through. Otherwise it would leave out a mask that the verifier needs,
    /// or make branches of arithmetic.
    fn opaque(number: u32) -> u32;

    /// All ones if the numbers are the same, else 0, without a branch.
    fn is(one: u32, other: u32) -> u32;
}

/// What [`Content::repeat`] does each time.
pub trait Step {
    /// Does it for the time of this number, from 0 on. 1 if it was the last, else 0.
    fn step(&mut self, index: u32) -> u32;
}

#[cfg(test)]
mod compared;

#[cfg(test)]
pub(crate) mod tests {
    use super::{Content, Step, Text};

    /// A message in memory.
    pub struct Slice<'a>(pub &'a [u8]);

    impl Slice<'_> {
        fn bytes(&self, offset: u32, length: usize) -> Option<&[u8]> {
            self.0.get(usize::try_from(offset).unwrap()..)?.get(..length)
        }

        pub fn size(&self) -> u32 {
            u32::try_from(self.0.len()).unwrap()
        }
    }

    impl Content for Slice<'_> {
        fn load<const N: usize>(&self, offset: u32, to: &mut [u32; N]) -> u32 {
            *to = [0; N];
            let Some(bytes) = self.bytes(offset, 4 * N) else { return 1 };
            let mut words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            *to = std::array::from_fn(|_| words.next().unwrap());
            0
        }

        fn load_text(&self, offset: u32, length: u32, to: &mut Text) -> u32 {
            assert!((1..=255).contains(&length), "{length}");
            let length = usize::try_from(length).unwrap();
            let Some(bytes) = self.bytes(offset, length) else { return 1 };
            to[..length].copy_from_slice(bytes);
            0
        }

        fn repeat<S: Step>(times: u32, step: &mut S) {
            // bpf_loop refuses more.
            assert!(times <= 8 << 20, "{times}");
            for index in 0..times {
                match step.step(index) {
                    0 => {}
                    1 => break,
                    other => panic!("{other}"),
                }
            }
        }

        fn opaque(number: u32) -> u32 {
            number
        }

        fn is(one: u32, other: u32) -> u32 {
            crate::net::ones_if_equal(one, other)
        }
    }

    /// A text as people write it.
    pub fn readable(text: &Text, length: u32) -> String {
        let length = usize::try_from(length).unwrap();
        assert_eq!(text[length], 0, "it ends with a NUL");
        text[..length].iter().rev().map(|byte| char::from(*byte)).collect()
    }
}
