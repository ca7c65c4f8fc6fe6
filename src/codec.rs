//! How messages are read and written: as protobuf, a message in one piece.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// The codec of every service. A usual one reads a message through what holds the connection's bytes, which takes
/// longer for each field than the field: a request with ten thousand ids has twenty thousand such steps.
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Whole<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Whole(PhantomData)
    }
}

/// Reads messages.
#[derive(Debug)]
pub(crate) struct Whole<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Whole<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // One piece, whatever it came in: parts of it that stay encoded are not copied once more.
        let whole = buf.copy_to_bytes(buf.remaining());
        // The code that gRPC has for what is no message of the kind.
        let refused = |error: prost::DecodeError| Status::internal(error.to_string());
        U::decode(whole).map(Some).map_err(refused)
    }
}
