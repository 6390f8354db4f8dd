//! cuRAND: generators exist, since candle makes one for each device. lsregen draws its noise on the CPU, so that drawing on
//! the device is a fault.

use std::ffi::c_void;

use super::object::{create, destroy, with};
use crate::fault::{Fault, fault};

const SUCCESS: i32 = 0;
const GENERATOR: &str = "cuRAND generator";

struct Generator;

#[unsafe(no_mangle)]
pub extern "C" fn curandCreateGenerator(to: *mut *mut c_void, _kind: i32) -> i32 {
    // CURAND_STATUS_INITIALIZATION_FAILED.
    if create(to, GENERATOR, Generator) { SUCCESS } else { 203 }
}

#[unsafe(no_mangle)]
pub extern "C" fn curandDestroyGenerator(generator: *mut c_void) -> i32 {
    destroy(generator, GENERATOR);
    SUCCESS
}

fn set(generator: *mut c_void) -> i32 {
    with(generator, GENERATOR, |_: &mut Generator| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn curandSetStream(generator: *mut c_void, _stream: *mut c_void) -> i32 {
    set(generator)
}

#[unsafe(no_mangle)]
pub extern "C" fn curandSetPseudoRandomGeneratorSeed(generator: *mut c_void, _seed: u64) -> i32 {
    set(generator)
}

#[unsafe(no_mangle)]
pub extern "C" fn curandSetGeneratorOffset(generator: *mut c_void, _offset: u64) -> i32 {
    set(generator)
}

macro_rules! draws {
    ($($name:ident),*) => { $(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> i32 {
            let text = concat!(stringify!($name), " draws on the device, but noise must not depend on the device");
            fault(Fault::Unsupported, text.into())
        }
    )* };
}

draws!(
    curandGenerate,
    curandGenerateUniform,
    curandGenerateUniformDouble,
    curandGenerateNormal,
    curandGenerateNormalDouble,
    curandGenerateLogNormal,
    curandGenerateLogNormalDouble
);
