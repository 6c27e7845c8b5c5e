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
    /// Images of our own, and names that people gave: nobody can be asked.
    Own,
}

impl Mode {
    /// Whether there is somebody to ask.
    pub fn has_upstream(self) -> bool {
        matches!(self, Self::Proxy | Self::Mirror)
    }

    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Mirror => "mirror",
            Self::Offline => "offline",
            Self::Own => "own",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::catalog::mode::Mode;

    #[test]
    fn who_can_be_asked_and_what_it_is_called() {
        for (mode, has_upstream, label) in
            [(Mode::Proxy, true, "proxy"), (Mode::Mirror, true, "mirror"), (Mode::Offline, false, "offline"), (Mode::Own, false, "own")]
        {
            assert_eq!((mode.has_upstream(), mode.label()), (has_upstream, label));
        }
    }
}
