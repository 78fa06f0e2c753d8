//! sinter-frontend
