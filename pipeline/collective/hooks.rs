//! What is told of gradients while a backward pass goes on: each as soon as it is whole. Memory: a hook for each tensor.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

use tch::Tensor;

use super::c10d::call;

unsafe extern "C" {
    fn gm_hook(
        tensor: *mut c_void,
        at: usize,
        told: extern "C" fn(usize, *mut c_void),
        why: *mut c_char,
        room: usize,
    ) -> i64;
    fn gm_unhook(tensor: *mut c_void, hook: i64);
    fn gm_backward_on_this_thread(only: bool) -> bool;
}

/// Hooks on tensors, until they are dropped: each tensor with the number of its hook.
#[derive(Debug, Default)]
pub struct Hooks(Mutex<Vec<(Tensor, i64)>>);

impl Hooks {
    /// Puts a hook on each tensor, all of which want gradients.
    ///
    /// # Errors
    /// What torch says, where one does not.
    pub fn on(tensors: &[Tensor]) -> Result<Self, String> {
        let mut hooks = Self::default();
        for (at, tensor) in tensors.iter().enumerate() {
            let mut tensor = tensor.shallow_clone();
            let pointer = tensor.as_mut_ptr().cast();
            // SAFETY: the tensor lives through the call, and `call` hands over a room of the length it says.
            let hook = call(|why, room| unsafe { gm_hook(pointer, at, told, why, room) })?;
            hooks.all().push((tensor, hook));
        }
        Ok(hooks)
    }

    fn all(&mut self) -> &mut Vec<(Tensor, i64)> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        for (tensor, hook) in self.all() {
            // SAFETY: the tensor is there, and has this hook.
            unsafe { gm_unhook(tensor.as_mut_ptr().cast(), *hook) };
        }
    }
}

/// Who is told on this thread.
type Listener = Box<dyn Fn(usize, Tensor)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Does something, and tells `listener` meanwhile of each gradient that a backward pass on this thread has of a tensor with
/// a hook: the tensor's number and the gradient, which must not be changed, since the pass may still read it. One of several passes
/// that add up to a gradient tells its part. Passes on a GPU, too, are put into its queue by this thread meanwhile.
pub fn listening<R>(listener: impl Fn(usize, Tensor) + 'static, act: impl FnOnce() -> R) -> R {
    /// Puts the listener before this one back, whatever happens.
    struct Before(Option<Listener>, bool);
    impl Drop for Before {
        fn drop(&mut self) {
            let before = self.0.take();
            drop(LISTENER.replace(before));
            // SAFETY: sets a flag of this thread.
            unsafe { gm_backward_on_this_thread(self.1) };
        }
    }
    // SAFETY: as above.
    let before = unsafe { gm_backward_on_this_thread(true) };
    let _before = Before(LISTENER.replace(Some(Box::new(listener))), before);
    act()
}

extern "C" fn told(at: usize, gradient: *mut c_void) {
    LISTENER.with_borrow(|listener| {
        if let Some(listener) = listener {
            // SAFETY: the gradient lives through this call, and the clone holds it from here on.
            listener(at, unsafe { Tensor::clone_from_ptr(gradient.cast()) });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn gradients_are_told_as_they_come_and_to_who_listens() {
        let leaf = |value: f32| Tensor::from_slice(&[value]).set_requires_grad(true);
        let tensors = [leaf(2.0), leaf(3.0), leaf(5.0)];
        let back = || {
            let product = &tensors[2] * (&tensors[1] * (&tensors[0] + &tensors[0]));
            Tensor::run_backward(&[product], &tensors[..], false, false)
        };
        let heard = |act: &dyn Fn()| {
            let (sender, receiver) = channel();
            listening(move |at, gradient| sender.send((at, f64::try_from(&gradient).unwrap())).unwrap(), act);
            receiver.iter().collect::<Vec<_>>()
        };
        assert_eq!(heard(&|| drop(back())), [], "no hooks");
        let hooks = Hooks::on(&tensors).unwrap();
        let all = [(2, 12.0), (1, 20.0), (0, 30.0)];
        assert_eq!(
            heard(&|| drop(back())),
            all,
            "those nearest to the end come first, the sum of both ways once"
        );
        let inner = |within: &dyn Fn()| heard(&|| assert_eq!(heard(within), all));
        assert_eq!(inner(&|| drop(back())), [], "the inner one alone");
        assert_eq!(
            heard(&|| {
                drop(std::thread::scope(|scope| scope.spawn(|| ()).join()));
                drop(heard(&|| ()));
                drop(back());
            }),
            all,
            "the outer one again"
        );
        drop(back());
        drop(hooks);
        assert_eq!(heard(&|| drop(back())), [], "no hooks any more");
        let plain = Tensor::from_slice(&[1.0_f32]);
        assert!(Hooks::on(&[plain]).unwrap_err().contains("doesn't require gradient"));
    }
}
