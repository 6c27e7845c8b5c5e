//! The ways to hold a remote.

/// How a remote is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Files are fetched when a host first asks.
    #[default]
    Proxy,
    /// All that is listed is held ahead of requests.
    Mirror,
    /// Nobody is asked; what is held is listed.
    Offline,
}

impl Mode {
    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Mirror => "mirror",
            Self::Offline => "offline",
        }
    }
}
