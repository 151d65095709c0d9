// How a function of C that is written in C++ says what failed. It catches all exceptions; one that fails returns null or a
// negative number, and writes why, cut to its room and ended by 0, to `why`.

#pragma once

#include <cstddef>
#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

namespace {

struct Why {
  char* text;
  size_t room;
};

void tell(Why why, const char* what) {
  if (why.room == 0) {
    return;
  }
  std::strncpy(why.text, what, why.room - 1);
  why.text[why.room - 1] = 0;
}

template <typename T, typename Act>
T caught(Why why, T failed, Act act) {
  try {
    return act();
  } catch (const c10::Error& error) {
    tell(why, error.what_without_backtrace());
  } catch (const std::exception& error) {
    tell(why, error.what());
  } catch (...) {
    tell(why, "an exception that says nothing");
  }
  return failed;
}

} // namespace
