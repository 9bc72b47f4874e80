// The error of samplers, apart from them: whoever translates it needs nothing else of theirs.
#pragma once
#include "memacct/error.hpp"

namespace memacct {

/// Used before its start, after its stop, after a fork, or with options that mean nothing.
class SamplerError : public Error {
 public:
  using Error::Error;
};

}  // namespace memacct
