#include "memacct/broker_client.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace memacct {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char const* kUsualPath = "/run/memacct/broker.sock";
constexpr std::uint32_t kLargestPid = 4194304;  // PID_MAX_LIMIT

class Socket {
 public:
  // A message arrives whole or not at all.
  Socket() : fd_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(Socket const&) = delete;
  Socket& operator=(Socket const&) = delete;
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_;
};

/// Waits for `fd` to be readable, or (-1) a moment, but not beyond `deadline`.
bool wait_until(Clock::time_point deadline, int fd) {
  auto const left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  if (left <= 0) return false;
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  ::poll(&waiting, 1, fd < 0 ? 1 : static_cast<int>(left));
  return true;
}

// 0, or the error number. A full queue of a broker that is alive empties soon.
int connect_to(Socket const& socket, sockaddr_un const& address, Clock::time_point deadline) {
  while (::connect(socket.fd(), reinterpret_cast<sockaddr const*>(&address), sizeof address) != 0) {
    if (errno == EISCONN) return 0;
    if (errno != EAGAIN && errno != EINTR) return errno;
    if (!wait_until(deadline, -1)) return ETIMEDOUT;
  }
  return 0;
}

BrokerAnswer receive(Socket const& socket, Clock::time_point deadline) {
  std::array<char, 128> message;
  while (true) {
    auto const got = ::recv(socket.fd(), message.data(), message.size(), MSG_DONTWAIT);
    if (got >= 0) return parse_broker_answer({message.data(), static_cast<std::size_t>(got)});
    if (errno != EAGAIN && errno != EINTR) {
      return {.pid = {}, .reason = std::string("no answer: ") + std::strerror(errno)};
    }
    if (!wait_until(deadline, socket.fd())) return {.pid = {}, .reason = "no answer in time"};
  }
}

BrokerAnswer ask(std::string const& path, bool wanted) {
  auto const deadline = Clock::now() + kBrokerPatience;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return {.pid = {}, .reason = "its path is too long"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Socket const socket;
  if (socket.fd() < 0) return {.pid = {}, .reason = std::strerror(errno)};
  if (int const error = connect_to(socket, address, deadline); error != 0) {
    bool const nobody_there = !wanted && error == ENOENT;
    return {.pid = {}, .reason = nobody_there ? "" : std::strerror(error)};
  }
  return receive(socket, deadline);
}

template <typename Number>
std::optional<Number> take_number(std::string_view& text, std::string_view key) {
  if (!text.starts_with(key)) return std::nullopt;
  text.remove_prefix(key.size());
  Number value{};
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

}  // namespace

BrokerAnswer parse_broker_answer(std::string_view message) {
  auto text = message;
  auto const version = take_number<std::uint32_t>(text, "memacct-broker ");
  if (version && *version != 1) {
    return {.pid = {}, .reason = "it speaks version " + std::to_string(*version) + ", not 1"};
  }
  auto const pid = version ? take_number<std::uint32_t>(text, " pid ") : std::nullopt;
  auto const pidns = pid ? take_number<std::uint64_t>(text, " pidns ") : std::nullopt;
  if (!pidns || text != "\n" || *pid > kLargestPid) {
    return {.pid = {}, .reason = "its answer is not understood"};
  }
  if (*pidns != kInitialPidNamespace) {
    return {.pid = {},
            .reason =
                "it is in pid namespace " + std::to_string(*pidns) + ", not in the machine's own"};
  }
  // The kernel's 0: not visible from the broker's namespace.
  if (*pid == 0) return {.pid = {}, .reason = "it cannot see this process"};
  return {.pid = pid, .reason = ""};
}

BrokerAnswer ask_broker() noexcept {
  try {
    auto const* const named = std::getenv("MEMACCT_BROKER");
    bool const wanted = named != nullptr && *named != '\0';
    std::string const path = wanted ? named : kUsualPath;
    auto answer = ask(path, wanted);
    if (!answer.reason.empty()) answer.reason = "the broker at " + path + ": " + answer.reason;
    return answer;
  } catch (...) {
    return {};  // out of memory for a sentence: nobody was found
  }
}

}  // namespace memacct
