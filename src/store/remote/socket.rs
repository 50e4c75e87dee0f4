//! [`Sockets`]: connections by TCP that acknowledge at once what has come.
//!
//! Linux may wait 40 ms for something to send along with an acknowledgement. A server that writes
//! head and body of an answer apart waits for it before it sends the body: 40 ms for each answer.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

/// How long one of a server's addresses may take at least, where there are others.
const LEAST: Duration = Duration::from_millis(10);

/// Opens connections, unless there is one to a proxy.
#[derive(Debug)]
pub(super) struct Sockets;

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// How long a read and a write may take, as the socket knows it.
    read_for: Option<Duration>,
    write_for: Option<Duration>,
}

impl<In: Transport> Connector<In> for Sockets {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(to_proxy) = chained {
            return Ok(Some(Either::A(to_proxy)));
        }
        let config = details.config;
        let stream = Arc::new(reached(details)?);
        stream.set_nodelay(config.no_delay())?;
        let handle: Weak<TcpStream> = Arc::downgrade(&stream);
        (details.register_shutdown)(handle)?;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(Socket { stream, buffers, read_for: None, write_for: None })))
    }
}

/// Connects to the first of a server's addresses that answers. Each has half of the time that is
/// left, and the last all of it.
fn reached(details: &ConnectionDetails<'_>) -> Result<TcpStream, Error> {
    let until = details.timeout.not_zero().map(|time| Instant::now() + *time);
    let mut failed = None;
    let mut addresses = details.addrs.iter().peekable();
    while let Some(address) = addresses.next() {
        let connected = match until {
            None => TcpStream::connect(address),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                let share = if addresses.peek().is_some() { left / 2 } else { left };
                TcpStream::connect_timeout(address, share.max(LEAST))
            }
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(told(error, details.timeout)),
        }
    }
    Err(failed.unwrap_or(Error::HostNotFound))
}

/// What a failure is called: it may be that time is over.
fn told(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

/// Tells a socket how long a call may take, unless it knows; without bounds if that is unbounded.
fn limit(
    known: &mut Option<Duration>,
    timeout: NextTimeout,
    tell: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> Result<(), Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    let time = timeout.not_zero().map(|time| *time);
    if time != *known {
        tell(time)?;
        *known = time;
    }
    Ok(())
}

impl Socket {
    /// Has what comes next acknowledged at once. Sending ends it, and where the system refuses, it
    /// acknowledges when it likes.
    fn acknowledge_at_once(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.stream, true);
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        limit(&mut self.write_for, timeout, |time| self.stream.set_write_timeout(time))?;
        let output = self.buffers.output();
        let output = output.get(..amount).unwrap_or(output);
        (&*self.stream).write_all(output).map_err(|error| told(error, timeout))?;
        self.acknowledge_at_once();
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        limit(&mut self.read_for, timeout, |time| self.stream.set_read_timeout(time))?;
        let room = self.buffers.input_append_buf();
        let count = loop {
            match (&*self.stream).read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| told(error, timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// Whether the other side holds it open, and has sent nothing that wasn't asked for.
    fn is_open(&mut self) -> bool {
        let mut stream = &*self.stream;
        stream.set_nonblocking(true).is_ok()
            && stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            && stream.set_nonblocking(false).is_ok()
    }
}
