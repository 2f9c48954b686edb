// How far one model's token distribution is from another's, row by row, without holding the logits of all rows.
#pragma once

#include "bitwright/session.h"

namespace bitwright {

// One row's distribution from its logits: log-sum-exp and the likeliest token.
struct Comparison {
  float kl;   // KL(reference || model), nats
  float nll;  // -log p(target), nats
  float nll_reference;
  float confidence_reference;   // probability of the likeliest token
  bool agrees;                  // same likeliest token
  bool right, right_reference;  // is the target the likeliest token?
};

// `hidden` rows as Session::forward gives them; targets are next tokens. `reference` may be null: then there is no KL, what
// is said of the reference is 0 or false, and the confidence is the model's own.
void compare(Session* reference, const float* reference_hidden, Session& session, const float* hidden, int rows,
             const int32_t* targets, Comparison* out);

}  // namespace bitwright
