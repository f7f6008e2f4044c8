//! Names with wildcards, as rules on tunables and Unix sockets have them.

/// A name in which `*` stands for any run of bytes, also over `/`, and `?` for one byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

/// One element of a [`Glob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Token {
    /// This byte.
    Byte(u8),
    /// Any one byte.
    AnyByte,
    /// Any number of bytes.
    AnyRun,
}

impl Glob {
    /// A glob of that text. Whether it makes sense as the name of something, its noun knows.
    ///
    /// # Errors
    ///
    /// When the text has a character that means more to other globs than to this one.
    pub(super) fn new(text: String, what: &str, allowed: impl Fn(char) -> bool) -> Result<Self, String> {
        match text.chars().find(|c| "[]{}\\".contains(*c) || !allowed(*c)) {
            Some(strange) => {
                Err(format!("{what} \"{text}\" has the character {strange:?}; the only wildcards are * and ?"))
            }
            None => Ok(Self(text)),
        }
    }

    /// The glob's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name that is meant, if there are no wildcards.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        let wild = self.tokens().any(|token| !matches!(token, Token::Byte(_)));
        (!wild).then_some(&self.0)
    }

    /// Whether a name is one of those that are meant.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let glob = self.0.as_bytes();
        let (mut at, mut read) = (0, 0);
        // Where the last `*` was, and how much of the name it has been tried with.
        let mut run: Option<(usize, usize)> = None;
        loop {
            match (glob.get(at), name.get(read)) {
                (Some(b'*'), _) => {
                    run = Some((at, read));
                    at += 1;
                }
                (Some(token), Some(byte)) if *token == b'?' || token == byte => (at, read) = (at + 1, read + 1),
                (None, None) => return true,
                _ => {
                    let Some((star, tried)) = run.filter(|(_, tried)| *tried < name.len()) else { return false };
                    run = Some((star, tried + 1));
                    (at, read) = (star + 1, tried + 1);
                }
            }
        }
    }

    /// The glob, element by element.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.0.bytes().map(|byte| match byte {
            b'*' => Token::AnyRun,
            b'?' => Token::AnyByte,
            byte => Token::Byte(byte),
        })
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}
